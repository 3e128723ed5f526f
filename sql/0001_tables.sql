-- The tables of the ledger: what each terminal still has to be told, and which receiver tells it.
--
-- All of it lives in the private schema hikvision_sync, which no API role can see. The receiver
-- uses it through the functions public.hikvision_sync_<verb> alone, and only service_role may call
-- those. Run as Supabase's `postgres` (not a superuser). Safe to run again.
--
-- The path of an edit:
--   edits  --(claim spreads them over the active terminals)-->  pairs  --(record)-->  done
--
-- HR's saves lock edits, posts and terminals, in the order of HR's writes. A transaction that
-- locked two of them could deadlock with a save, so each transaction here locks one at most. It
-- gives up after waiting for 2 s, because all later saves wait behind it: then run the file again.
-- A limit below deadlock_timeout (1 s) would also give up when an autovacuum holds the lock,
-- because an autovacuum yields only then.

begin;
set local lock_timeout = '2s';

create schema if not exists hikvision_sync;
revoke all on schema hikvision_sync from public;

-- Where the columns that count are in HR's tables: a renamed one is so found under its new name.
create table if not exists hikvision_sync.columns (
    table_name  text not null,
    column_name text not null,
    relation    oid not null,
    attnum      smallint not null,
    primary key (table_name, column_name)
);

-- Return the columns of HR's tables that count. kinds are the types that can be worked with, any
-- where there is none. One that is `optional` may be missing: `nume_complet`, and `port`, which is
-- 80 then; `nume` and `prenume` may be missing where there is `nume_complet`.
create or replace function hikvision_sync.columns_that_count()
returns table (table_name text, column_name text, kinds text[], optional boolean)
language sql immutable set search_path = '' as $$
    values
        ('angajati', 'id', '{uuid}'::text[], false),
        ('angajati', 'status', '{text}', false),
        ('angajati', 'nume', '{}', false),
        ('angajati', 'prenume', '{}', false),
        ('angajati', 'nume_complet', '{}', true),
        ('angajati_biometrie', 'angajat_id', '{uuid}', false),
        ('angajati_biometrie', 'employee_no', '{integer,text}', false),
        ('angajati_biometrie', 'foto_fata_url', '{text}', false),
        ('dispozitive_pontaj', 'id', '{uuid}', false),
        ('dispozitive_pontaj', 'ip_address', '{}', false),
        ('dispozitive_pontaj', 'port', '{}', true),
        ('dispozitive_pontaj', 'username', '{}', false),
        ('dispozitive_pontaj', 'password_encrypted', '{}', false),
        ('dispozitive_pontaj', 'status', '{text}', false)
$$;
revoke all on function hikvision_sync.columns_that_count from public;

-- Note where the columns that count are now; one that is gone for good is forgotten.
create or replace function hikvision_sync.remember_columns(p_forget boolean)
returns void language sql set search_path = '' as $$
    with here as (
        select counting.table_name, counting.column_name, attribute.attrelid, attribute.attnum
        from hikvision_sync.columns_that_count() counting
        join pg_catalog.pg_attribute attribute
            on attribute.attrelid = to_regclass('public.' || counting.table_name)
               and attribute.attname = counting.column_name and not attribute.attisdropped
    ), forgotten as (
        delete from hikvision_sync.columns known
        where p_forget and not exists (select from here
                                       where here.table_name = known.table_name
                                         and here.column_name = known.column_name)
    )
    insert into hikvision_sync.columns as known (table_name, column_name, relation, attnum)
        select * from here
        on conflict (table_name, column_name) do update
        set relation = excluded.relation, attnum = excluded.attnum
        where (known.relation, known.attnum) <> (excluded.relation, excluded.attnum)
$$;
revoke all on function hikvision_sync.remember_columns from public;

-- Return which of these columns one of HR's tables lacks and must not, and how they are named now,
-- where that is known. An optional one may be missing, but not have another name.
create or replace function hikvision_sync.lost(p_table text, p_columns text[])
returns table (name text, now text) language sql stable set search_path = '' as $$
    with here as (
        select attribute.attname::text as name, attribute.attnum, attribute.attrelid
        from pg_catalog.pg_attribute attribute
        where attribute.attrelid = to_regclass('public.' || p_table)
          and attribute.attnum > 0 and not attribute.attisdropped
    )
    select missing.name, missing.now
    from (
        select asked.name, (
            select here.name from hikvision_sync.columns known
            join here on here.attrelid = known.relation and here.attnum = known.attnum
            where known.table_name = p_table and known.column_name = asked.name) as now
        from unnest(p_columns) as asked(name)
        where asked.name not in (select here.name from here)
    ) missing
    where missing.now is not null
       or missing.name not in (
           select counting.column_name from hikvision_sync.columns_that_count() counting
           where counting.table_name = p_table and counting.optional)
      and not (missing.name in ('nume', 'prenume')
               and 'nume_complet' in (select here.name from here))
$$;
revoke all on function hikvision_sync.lost from public;

-- Say in words what keeps the receiver from reading some of HR's tables, and which statement mends
-- it; null where nothing does. p_tables are names of tables in public.
-- Promise: it names each table that is missing or is a view, each column that is missing and must
-- not be, each column of a type that cannot be worked with, a table that its caller may not read,
-- and one of which row security may hide rows from its caller: hidden rows would make everybody a
-- leaver. It looks at no row. No statement that it names makes somebody a leaver as it stands.
create or replace function hikvision_sync.fault_of(variadic p_tables text[])
returns text language plpgsql stable set search_path = '' as $$
begin
    return (
    with tables as (
        select asked.name, relation.oid, relation.relkind
        from unnest(p_tables) as asked(name)
        left join pg_catalog.pg_class relation
            on relation.oid = to_regclass('public.' || asked.name)
    ), needed as (
        select tables.name as table_name, tables.oid, counting.column_name, counting.kinds,
               counting.optional
        from hikvision_sync.columns_that_count() counting
        join tables on tables.name = counting.table_name and tables.relkind in ('r', 'p')
    ), columns as (
        select needed.*, attribute.attnum, base.oid as base,
               format_type(attribute.atttypid, attribute.atttypmod) as type,
               case when base.oid in (21, 20, 23) then 'integer'    -- smallint, bigint, integer
                    when base.oid = 1042 then 'character'           -- its blanks would count
                    when base.typcategory in ('S', 'E') then 'text' -- an enum counts as one
                    else base.typname end as kind
        from needed
        join pg_catalog.pg_attribute attribute
            on attribute.attrelid = needed.oid and attribute.attname = needed.column_name
               and not attribute.attisdropped
        cross join lateral (    -- under domains over domains
            with recursive declared as (
                select type.oid, type.typbasetype from pg_catalog.pg_type type
                where type.oid = attribute.atttypid
                union all
                select type.oid, type.typbasetype from pg_catalog.pg_type type
                join declared on type.oid = declared.typbasetype
            )
            select type.* from pg_catalog.pg_type type
            join declared on declared.oid = type.oid and declared.typbasetype = 0
        ) base
    ), wrong as (
        select columns.* from columns
        where columns.kinds <> '{}' and columns.kind <> all (columns.kinds)
    ), keys as (     -- no statement changes the type of one end alone
        select distinct foreign_key.conrelid::regclass as owner, foreign_key.conname as name,
               pg_get_constraintdef(foreign_key.oid) as definition
        from pg_catalog.pg_constraint foreign_key
        join wrong on (foreign_key.conrelid = wrong.oid and wrong.attnum = any (foreign_key.conkey)
                       or foreign_key.confrelid = wrong.oid
                       and wrong.attnum = any (foreign_key.confkey))
        where foreign_key.contype = 'f'
    ), faults as (
        select 0 as turn, tables.name, 1 as place, case when tables.oid is null then format(
            'there is no table public.%1$s: rename it back (alter table public.<its new name> '
            'rename to %1$s)', tables.name) else format(
            'public.%1$s is no table, and no trigger hears what is saved behind it: give the table '
            'itself that name', tables.name) end as words
        from tables where tables.oid is null or tables.relkind not in ('r', 'p')
        union all
        select 0, needed.table_name, 2, format(case
            when lost.now is null then
                'public.%1$s has no column %2$s: rename it back (alter table public.%1$s rename '
                'column <its new name> to %2$s); if it was dropped, add and fill it in one '
                'transaction (alter table public.%1$s add column %2$s %3$s; update public.%1$s set '
                '%2$s = <its value>)'
            else
                'public.%1$s has no column %2$s: rename it back (alter table public.%1$s rename '
                'column %4$I to %2$s)'
                || case when needed.optional then '; where that does not count any more, run '
                        'sql/0001_tables.sql again' else '' end end,
            needed.table_name, needed.column_name, coalesce(needed.kinds[1], 'text'), lost.now)
        from needed
        cross join lateral hikvision_sync.lost(needed.table_name, array[needed.column_name]) lost
        union all
        select 0, '', 3, format(
            'in one transaction, because of a foreign key: alter table %s drop constraint %I',
            keys.owner, keys.name)
        from keys
        union all
        select 1, wrong.table_name, 4, format(
            'public.%1$s.%2$s is %3$s and must be %4$s: alter table public.%1$s alter column %2$s '
            'type %5$s', wrong.table_name, wrong.column_name, wrong.type,
            array_to_string(wrong.kinds, ' or '),
            case when wrong.kind = 'character' and 'text' = any (wrong.kinds)
                 then 'text using rtrim(' || wrong.column_name || ')'
                 when wrong.column_name = 'status'
                 then 'text using case when <they may pass> then ''activ'' else ''inactiv'' end'
                 else wrong.kinds[1] || ' using ' || wrong.column_name || '::' || wrong.kinds[1]
            end)
        from wrong
        union all
        select 2, '', 5, format(
            'and at the end of that transaction: alter table %s add constraint %I %s',
            keys.owner, keys.name, keys.definition)
        from keys
        union all
        select 3, columns.table_name, 6, format(
            'public.%1$s.%2$s is %3$s, which has no value activ: name that so (alter type %3$s '
            'rename value <its name> to ''activ'')',
            columns.table_name, columns.column_name, columns.type)
        from columns
        where columns.column_name = 'status' and columns.base in (
                select pg_enum.enumtypid from pg_catalog.pg_enum)
          and not exists (select from pg_catalog.pg_enum
                          where pg_enum.enumtypid = columns.base and pg_enum.enumlabel = 'activ')
        union all
        select 3, tables.name, 7, format(
            '%1$s may not read public.%2$s: grant select on public.%2$s to %1$s',
            current_user, tables.name)
        from tables where not has_table_privilege(tables.oid, 'select')
        union all
        select 3, tables.name, 8, format(
            'row security hides rows of public.%2$s from %1$s, its reader: alter role %1$s '
            'bypassrls (or alter table public.%2$s no force row level security, where %1$s owns '
            'it)', current_user, tables.name)
        from tables where row_security_active(tables.oid)
    )
    select string_agg(faults.words, '; ' order by faults.turn, faults.name, faults.place)
    from faults);
end $$;
revoke all on function hikvision_sync.fault_of from public;

select hikvision_sync.remember_columns(true);

do $$
declare
    v_fault text := hikvision_sync.fault_of(
        'angajati', 'angajati_biometrie', 'dispozitive_pontaj');
begin
    if v_fault is not null then    -- also undoes what was made above
        raise exception '%. Nothing was changed here: mend it, and run this file again', v_fault
            using errcode = 'HR001';
    end if;
end $$;

-- Edits that are not yet spread over the terminals: HR edited an employee, or a terminal has to be
-- filled with everybody. The triggers only insert here.
-- Promise: an edit that HR committed has a row here until claim has turned it into wanted pairs, in
-- one transaction. Since the triggers only insert, HR's transaction waits for no lock of ours,
-- cannot deadlock with another edit, and pays for one row however many terminals there are.
create table if not exists hikvision_sync.edits (
    id          bigint generated always as identity primary key,
    employee_id uuid,                   -- angajati.id; no foreign key: deleted ones count too
    edited_at   timestamptz not null default clock_timestamp(),
    terminal_id uuid,                   -- dispozitive_pontaj.id, where employee_id is null: a fill
    changed     boolean not null default false -- and that terminal's row was changed
);

-- Which of pg_net's requests are webhooks of ours: pg_net serves the whole project, and its answers
-- do not say to whom a request went. Only `receiver check` reads this table.
-- Promise: it is unlogged, as pg_net's own tables are. A crash empties those and lets their ids
-- begin again at 1, so it must empty this table too. The triggers only insert here; spread_edits
-- deletes what pg_net has forgotten.
create unlogged table if not exists hikvision_sync.posts (
    request_ids bigint[] not null,
    posted_at   timestamptz not null default clock_timestamp()
);

-- One row for each pair (employee, terminal) that was ever wanted.
-- Promise: a pair with wanted > done still has to be brought to its terminal. Each edit adds one to
-- wanted. record sets done to the version that was claimed, so a pair that is edited while it is
-- pushed stays wanted.
create table if not exists hikvision_sync.pairs (
    terminal_id     uuid not null,      -- dispozitive_pontaj.id
    employee_id     uuid not null,      -- angajati.id
    wanted          bigint not null default 1,
    done            bigint not null default 0,
    wanted_since    timestamptz not null default clock_timestamp(), -- the oldest edit not yet done
    attempts        integer not null default 0,   -- failed ones since the last edit
    next_attempt_at timestamptz not null default clock_timestamp(),
    status          text check (status in ('success', 'partial', 'skipped', 'fatal')),
    step            text,               -- where the last attempt ended
    message         text,               -- why, in words for a person; no secrets, no URLs
    recorded_at     timestamptz,
    employee_no     text,               -- the number under which the terminal holds the person
    photo           text,               -- fingerprint of the photo that the terminal holds, or why
                                        -- it is not known: `unknown`, `not there`, `replaced`
    leaves          boolean not null default false, -- the terminal held the person when HR last
                                                    -- said that the person may not pass any more
    confirmed_at    timestamptz,        -- when the terminal last said that it holds what is done
    in_doubt        boolean not null default false, -- wanted because the terminal may hold
                                                    -- something else than the row says
    refused         text,               -- fingerprint of what HR had when the last attempt failed
    primary key (terminal_id, employee_id),
    check (done <= wanted)
);

-- One row for each terminal: its lease and its rest.
-- Promise: at most one receiver holds a terminal. fence grows by one with each lease, and the
-- holder must show it with every later call: a caller that shows an old fence is told so and
-- changes nothing. A lease that ran out is still its holder's until another receiver takes it.
create table if not exists hikvision_sync.terminals (
    terminal_id  uuid primary key,      -- dispozitive_pontaj.id
    fence        bigint not null default 0,
    leased_by    text,                  -- null: free
    leased_at    timestamptz,
    leased_until timestamptz,
    free_at      timestamptz not null default '-infinity', -- the pause after the last call ends
    last_held_by text,                  -- its own gate keeps that pause; others wait for free_at
    failures     integer not null default 0,  -- attempts in a row without a useful answer
    rests_until  timestamptz,           -- null: it does not rest
    rest_reason  text,
    login_refused boolean not null default false, -- why it rests: one more try may lock the account
    changed_at   timestamptz,           -- when its row in dispozitive_pontaj last changed
    device       jsonb,                 -- what is known of the hardware and firmware behind the row
    looked_at    timestamptz,           -- when it last said which hardware it is
    replaced_at_fence bigint,           -- under which lease it was last found to be another one
    rest_kind    text,                  -- rest_reason in one of few words, which are counted
    verify_began_at timestamptz default clock_timestamp(), -- when it was last asked for everybody;
                                        -- a new one is filled, which confirms everybody
    verification jsonb,                 -- how far that has come; null: it is over
    verified_at  timestamptz,           -- when that last came to its end
    verified     jsonb                  -- what it found, in figures
);

-- Every number that a receiver ever put on a piece of hardware, and whose it was.
-- Promise: whoever may not pass is ended there, whichever row of dispozitive_pontaj the hardware
-- stands behind now, and also after its own backup brought the person back. So a row stays when its
-- number has left the hardware, and when this software is uninstalled.
create table if not exists hikvision_sync.numbers (
    hardware    text not null,          -- its serial; the terminal_id where it does not say one
    employee_no text not null,
    employee_id uuid not null,          -- angajati.id
    there       boolean not null default true, -- it may be on the hardware now
    anothers    boolean not null default false, -- with the face of whoever had the number before
    primary key (hardware, employee_no)
);

-- What storage last said of the photo that HR has of an employee.
create table if not exists hikvision_sync.photos (
    employee_id uuid primary key,       -- angajati.id
    reference   text not null,          -- foto_fata_url, as HR has it
    etag        text,                   -- null: storage did not say one
    asked_at    timestamptz not null default clock_timestamp()
);

-- Which of these files were applied, and in which version.
create table if not exists hikvision_sync.files (
    name    text primary key,
    version integer not null
);

-- One row for each receiver that was at work lately, and the policy by which it treats leavers.
create table if not exists hikvision_sync.receivers (
    receiver text primary key,
    policy   text not null,             -- its LEAVER_POLICY
    began_at timestamptz not null default clock_timestamp(),
    seen_at  timestamptz not null default clock_timestamp()
);

commit;

-- Upgrades. `create table if not exists` leaves a table that an earlier version made as it is. Here
-- such a table gets the columns that it lacks; the indexes follow, because they need the columns.

begin;
set local lock_timeout = '2s';

alter table hikvision_sync.edits alter column employee_id drop not null;
alter table hikvision_sync.edits add column if not exists terminal_id uuid;
alter table hikvision_sync.edits add column if not exists changed boolean not null default false;

-- The status looks for the oldest fill of a terminal among many edits.
create index if not exists edits_fill
    on hikvision_sync.edits (terminal_id) where terminal_id is not null;

commit;

begin;
set local lock_timeout = '2s';

create index if not exists posts_when on hikvision_sync.posts (posted_at);

commit;

begin;
set local lock_timeout = '2s';

alter table hikvision_sync.pairs
    add column if not exists leaves boolean not null default false,
    add column if not exists confirmed_at timestamptz,
    add column if not exists in_doubt boolean not null default false,
    add column if not exists refused text;

-- record and intend look for the person who has a number.
create index if not exists pairs_number
    on hikvision_sync.pairs (terminal_id, employee_no) where employee_no is not null;

-- claim looks for the wanted pairs of one terminal, leavers first, then those that never failed.
create index if not exists pairs_turn
    on hikvision_sync.pairs (terminal_id, leaves desc, attempts, wanted_since) where wanted > done;
drop index if exists hikvision_sync.pairs_wanted;   -- an earlier version's, without leavers

-- claim asks each terminal whether a pair is due, and a leaver's, however many others wait there.
create index if not exists pairs_due
    on hikvision_sync.pairs (terminal_id, leaves, next_attempt_at) where wanted > done;

-- The status and its page of failures look for the pairs that failed.
create index if not exists pairs_failed
    on hikvision_sync.pairs (terminal_id, employee_id) where status <> 'success';

commit;

begin;
set local lock_timeout = '2s';

alter table hikvision_sync.terminals
    add column if not exists last_held_by text,
    add column if not exists login_refused boolean not null default false,
    add column if not exists device jsonb,
    add column if not exists looked_at timestamptz,
    add column if not exists replaced_at_fence bigint,
    add column if not exists rest_kind text,
    add column if not exists verify_began_at timestamptz,   -- null: it is verified at once
    add column if not exists verification jsonb,
    add column if not exists verified_at timestamptz,
    add column if not exists verified jsonb;
alter table hikvision_sync.terminals
    alter column verify_began_at set default clock_timestamp();

commit;

begin;
set local lock_timeout = '2s';

alter table hikvision_sync.numbers
    add column if not exists anothers boolean not null default false;

-- claim and record look for the numbers of one person on a piece of hardware.
create index if not exists numbers_owner on hikvision_sync.numbers (hardware, employee_id);

-- What an earlier version knew, or what was left when this software was uninstalled.
insert into hikvision_sync.numbers (hardware, employee_no, employee_id)
    select coalesce(nullif(terminal.device ->> 'serial', ''), terminal.terminal_id::text),
           pair.employee_no, pair.employee_id
    from hikvision_sync.pairs pair
    join hikvision_sync.terminals terminal on terminal.terminal_id = pair.terminal_id
    where pair.employee_no is not null
    on conflict do nothing;

insert into hikvision_sync.files (name, version) values ('0001_tables', 2)
    on conflict (name) do update set version = excluded.version;

commit;
