-- HR's tables, as the receiver reads them. Needs 0001 and 0002. Safe to run again; no save of HR
-- waits for this file, and these functions take no lock that HR would wait for.
--
-- Why not through PostgREST's own reads of tables: those depend on exactly one foreign key between
-- the tables and on every column that they name, cut an answer at a number of rows without saying
-- so, and may be answered by a read replica that lags. Each of these functions returns one jsonb
-- value, which nothing cuts, and is called with POST, which the primary answers.
--
-- Each column is read by its name where there is one, and as null where not, as 0003 says: a column
-- more or less breaks nothing.
-- Where a missing one, or rows that row security hides, would make somebody a leaver or take a face
-- away, `require` raises HR001 instead, in words that say which statement mends it. `set
-- row_security = off` besides has Postgres itself raise where it would hide rows.

begin;

-- Raise HR001 where one of these tables of public cannot be read as it must be.
create or replace function hikvision_sync.require(variadic p_tables text[])
returns void language plpgsql stable set search_path = '' as $$
declare
    v_fault text := hikvision_sync.fault_of(variadic p_tables);
begin
    if v_fault is not null then
        raise exception '%', v_fault using errcode = 'HR001';
    end if;
end $$;

-- Return the employees with these ids, in the order of their ids: an array of objects of texts.
-- Promise: an id without an object has no row in angajati. No private column is returned. Of
-- several rows in angajati_biometrie the one with the lowest number counts, and of several in
-- angajati with one id an active one, so that the choice does not change.
create or replace function public.hikvision_sync_employees(p_ids uuid[])
returns jsonb language plpgsql stable security definer
set search_path = '' set row_security = off as $$
#variable_conflict use_variable
begin
    perform hikvision_sync.require('angajati', 'angajati_biometrie');
    return (
        with missing as (
            select null::text as id, null::text as nume, null::text as prenume,
                   null::text as nume_complet
        ), biometrics as materialized (
            select distinct on (read.angajat_id) read.*
            from missing
            cross join public.angajati_biometrie biometrics
            cross join lateral (
                select angajat_id, nullif(btrim(employee_no::text), '') as employee_no,
                       foto_fata_url::text as foto_fata_url, id::text as id
                from (select biometrics.*) found) read
            where biometrics.angajat_id = any (p_ids)
            order by read.angajat_id, length(read.employee_no),   -- without one: last
                     read.employee_no collate "C", read.id
        ), employees as materialized (
            select distinct on (employee.id) employee.id as employee_id, read.*
            from missing
            cross join public.angajati employee
            cross join lateral (
                select nume::text as nume, prenume::text as prenume,
                       nume_complet::text as nume_complet, status::text as status
                from (select employee.*) found) read
            where employee.id = any (p_ids)
            order by employee.id, (read.status = 'activ') is true desc, read.nume, read.prenume
        )
        select coalesce(jsonb_agg(jsonb_build_object(
            'id', employees.employee_id,
            'nume', employees.nume,
            'prenume', employees.prenume,
            'nume_complet', employees.nume_complet,
            'status', employees.status,
            'employee_no', biometrics.employee_no,
            'foto_fata_url', biometrics.foto_fata_url) order by employees.employee_id), '[]')
        from employees
        left join biometrics on biometrics.angajat_id = employees.employee_id);
end $$;

-- Return a page of all employees, active or not, as hikvision_sync_employees does.
-- p_after is the last id of the page before, null for the first page; an empty page is the end.
create or replace function public.hikvision_sync_everybody(p_after uuid, p_limit integer)
returns jsonb language plpgsql stable security definer
set search_path = '' set row_security = off as $$
#variable_conflict use_variable
begin
    perform hikvision_sync.require('angajati', 'angajati_biometrie');
    return public.hikvision_sync_employees(array(
        select employee.id from public.angajati employee
        where p_after is null or employee.id > p_after
        order by employee.id limit least(p_limit, 1000)));
end $$;

-- Return a page of the ids of active employees: an array of objects with an id, in order.
-- p_after is the last id of the page before, null for the first page; an empty page is the end.
create or replace function public.hikvision_sync_active(p_after uuid, p_limit integer)
returns jsonb language plpgsql stable security definer
set search_path = '' set row_security = off as $$
#variable_conflict use_variable
begin
    perform hikvision_sync.require('angajati');
    return (
        select coalesce(jsonb_agg(jsonb_build_object('id', page.id) order by page.id), '[]')
        from (
            select employee.id from public.angajati employee
            where employee.status = 'activ' and (p_after is null or employee.id > p_after)
            order by employee.id limit least(p_limit, 10000)
        ) page);
end $$;

-- Return the terminals with these ids, or (null) all active ones, in the order of their ids: an
-- array of objects of texts. `nume` is null where there is no such column.
-- Promise: the password is for service_role alone, which could read the table too.
create or replace function public.hikvision_sync_terminals(p_ids uuid[])
returns jsonb language plpgsql stable security definer
set search_path = '' set row_security = off as $$
#variable_conflict use_variable
begin
    perform hikvision_sync.require('dispozitive_pontaj');
    return (
        select coalesce(jsonb_agg(jsonb_build_object(
            'id', device.id,
            'nume', read.nume,
            'ip_address', format('%s', read.ip_address),    -- as text, inet has its netmask
            'port', read.port,
            'username', read.username,
            'password_encrypted', read.password_encrypted,
            'status', read.status) order by device.id), '[]')
        from (select null::text as nume, null::text as port) missing
        cross join public.dispozitive_pontaj device
        cross join lateral (
            select nume::text as nume, ip_address, port::text as port, username::text as username,
                   password_encrypted::text as password_encrypted, status::text as status
            from (select device.*) found) read
        where device.id = any (p_ids) or p_ids is null and device.status = 'activ');
end $$;

insert into hikvision_sync.files (name, version) values ('0007_company', 2)
    on conflict (name) do update set version = excluded.version;

select hikvision_sync.grant_to_service_role();

notify pgrst, 'reload schema';

commit;
