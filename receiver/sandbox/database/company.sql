-- The company's own tables, as its HR app made them: this project reads some of the columns and
-- changes none. Run as project_owner on a database that supabase.sql prepared; safe to run twice.

create table if not exists public.angajati (
    id uuid primary key default gen_random_uuid(),
    nume text,
    prenume text,
    nume_complet text,
    status text default 'activ',
    -- Private columns. Nothing outside the company may ever read these.
    cnp text,
    iban text,
    salariu numeric,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create table if not exists public.angajati_biometrie (
    id uuid primary key default gen_random_uuid(),
    angajat_id uuid unique references public.angajati (id) on delete cascade,
    employee_no integer unique,
    foto_fata_url text,
    hikvision_employee_no text,
    updated_at timestamptz not null default now()
);

create table if not exists public.dispozitive_pontaj (
    id uuid primary key default gen_random_uuid(),
    nume text,
    ip_address text,
    port integer,
    username text,
    password_encrypted text, -- plain text, whatever its name says
    status text default 'activ',
    updated_at timestamptz not null default now()
);

create sequence if not exists public.angajati_employee_no_seq start with 1000;

create or replace function public.angajati_biometrie_numeroteaza()
returns trigger
language plpgsql
as $$
begin
    if new.employee_no is null then
        new.employee_no := nextval('public.angajati_employee_no_seq');
    end if;
    return new;
end
$$;

create or replace trigger angajati_biometrie_numeroteaza
    before insert on public.angajati_biometrie
    for each row execute function public.angajati_biometrie_numeroteaza();

-- Every save touches updated_at, so a save that changed nothing still writes the row.
create or replace function public.marcheaza_modificarea()
returns trigger
language plpgsql
as $$
begin
    new.updated_at := now();
    return new;
end
$$;

create or replace trigger angajati_modificat
    before update on public.angajati
    for each row execute function public.marcheaza_modificarea();
create or replace trigger angajati_biometrie_modificat
    before update on public.angajati_biometrie
    for each row execute function public.marcheaza_modificarea();
create or replace trigger dispozitive_pontaj_modificat
    before update on public.dispozitive_pontaj
    for each row execute function public.marcheaza_modificarea();

-- HR is every signed-in user. Others see nothing, whatever the default grants say.
alter table public.angajati enable row level security;
alter table public.angajati_biometrie enable row level security;
alter table public.dispozitive_pontaj enable row level security;

drop policy if exists hr_all on public.angajati;
create policy hr_all on public.angajati
    for all to authenticated using (true) with check (true);
drop policy if exists hr_all on public.angajati_biometrie;
create policy hr_all on public.angajati_biometrie
    for all to authenticated using (true) with check (true);
drop policy if exists hr_all on public.dispozitive_pontaj;
create policy hr_all on public.dispozitive_pontaj
    for all to authenticated using (true) with check (true);
