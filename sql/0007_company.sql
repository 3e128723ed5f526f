-- HR's tables, as the receiver reads them. Needs 0001 and 0002. Safe to run again; no save of HR
-- waits for this file, and these functions take no lock that HR would wait for.
--
-- Why not through PostgREST's own reads of tables: those depend on exactly one foreign key between
-- the tables and on every column that they name, cut an answer at a number of rows without saying
-- so, and may be answered by a read replica that lags. Each of these functions returns one jsonb
-- value, which nothing cuts, and is called with POST, which the primary answers.
--
-- A column is read as `to_jsonb(row) ->> 'column'`, so that a column more or less breaks nothing.
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
-- several rows in angajati_biometrie the one with the lowest number counts, so that the choice does
-- not change.
create or replace function public.hikvision_sync_employees(p_ids uuid[])
returns jsonb language plpgsql stable security definer
set search_path = '' set row_security = off as $$
begin
    perform hikvision_sync.require('angajati', 'angajati_biometrie');
    return (
        with biometrics as materialized (
            select distinct on (numbered.angajat_id) numbered.*
            from (
                select found.angajat_id, found.stored ->> 'employee_no' as employee_no,
                       found.stored ->> 'foto_fata_url' as foto_fata_url,
                       found.stored ->> 'id' as id
                from (
                    select row.angajat_id, to_jsonb(row) as stored
                    from public.angajati_biometrie row where row.angajat_id = any (p_ids)
                    offset 0    -- makes each row's jsonb once
                ) found
            ) numbered
            order by numbered.angajat_id, length(numbered.employee_no),   -- without one: last
                     numbered.employee_no collate "C", numbered.id
        )
        select coalesce(jsonb_agg(jsonb_build_object(
            'id', found.id,
            'nume', found.stored ->> 'nume',
            'prenume', found.stored ->> 'prenume',
            'nume_complet', found.stored ->> 'nume_complet',
            'status', found.stored ->> 'status',
            'employee_no', biometrics.employee_no,
            'foto_fata_url', biometrics.foto_fata_url) order by found.id), '[]')
        from (
            select employee.id, to_jsonb(employee) as stored
            from public.angajati employee where employee.id = any (p_ids)
            offset 0
        ) found
        left join biometrics on biometrics.angajat_id = found.id);
end $$;

-- Return a page of all employees, active or not, as hikvision_sync_employees does.
-- p_after is the last id of the page before, null for the first page; an empty page is the end.
create or replace function public.hikvision_sync_everybody(p_after uuid, p_limit integer)
returns jsonb language plpgsql stable security definer
set search_path = '' set row_security = off as $$
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
begin
    perform hikvision_sync.require('dispozitive_pontaj');
    return (
        select coalesce(jsonb_agg(jsonb_build_object(
            'id', found.id,
            'nume', found.stored ->> 'nume',
            'ip_address', found.stored ->> 'ip_address',
            'port', found.stored ->> 'port',
            'username', found.stored ->> 'username',
            'password_encrypted', found.stored ->> 'password_encrypted',
            'status', found.stored ->> 'status') order by found.id), '[]')
        from (
            select device.id, to_jsonb(device) as stored
            from public.dispozitive_pontaj device
            where device.id = any (p_ids) or p_ids is null and device.status = 'activ'
            offset 0
        ) found);
end $$;

select hikvision_sync.grant_to_service_role();

notify pgrst, 'reload schema';

commit;
