-- Take everything of ours out of the database, whichever version is installed, but the memory of
-- which numbers are on terminals. Safe to run again, and after a partial installation.
-- The two Vault secrets belong to the operator: delete from vault.secrets where name like
-- 'hikvision_sync_%' removes them too.
--
-- A transaction that locked two of HR's tables could deadlock with a save that writes them in
-- another order, so each transaction here locks one at most. It gives up after waiting for 2 s,
-- because all later saves wait behind it: then run the file again. Once no trigger is left, no save
-- holds a table of ours, because each drop has waited for the saves that had fired the trigger.

begin;
set local lock_timeout = '2s';

do $$    -- on tables that inherit from HR's, or are partitions: few, and locked after one another
declare
    v_trigger record;
begin
    for v_trigger in
        select ours.tgrelid::regclass as relation, ours.tgname from pg_trigger ours
        join pg_inherits child on child.inhrelid = ours.tgrelid
        where ours.tgname like 'hikvision\_sync\_%' and ours.tgparentid = 0
        order by ours.tgrelid, ours.tgname
    loop
        execute format('drop trigger %I on %s', v_trigger.tgname, v_trigger.relation);
    end loop;
end $$;

commit;

begin;
set local lock_timeout = '2s';

drop trigger if exists hikvision_sync_inserted on public.angajati;
drop trigger if exists hikvision_sync_updated on public.angajati;
drop trigger if exists hikvision_sync_deleted on public.angajati;
drop trigger if exists hikvision_sync_truncated on public.angajati;

commit;

begin;
set local lock_timeout = '2s';

drop trigger if exists hikvision_sync_inserted on public.angajati_biometrie;
drop trigger if exists hikvision_sync_updated on public.angajati_biometrie;
drop trigger if exists hikvision_sync_deleted on public.angajati_biometrie;
drop trigger if exists hikvision_sync_truncated on public.angajati_biometrie;

commit;

begin;
set local lock_timeout = '2s';

drop trigger if exists hikvision_sync_inserted on public.dispozitive_pontaj;
drop trigger if exists hikvision_sync_changed on public.dispozitive_pontaj;

commit;

begin;
set local lock_timeout = '2s';

do $$
declare
    v_function regprocedure;
begin
    for v_function in
        select function.oid::regprocedure from pg_proc function
        where function.pronamespace = 'public'::regnamespace
          and function.proname like 'hikvision\_sync\_%'
    loop
        execute format('drop function %s', v_function);
    end loop;
end $$;

-- Keep what no terminal can be asked for: which numbers were put on which hardware. Whoever leaves
-- from now on may pass there, until this software is installed again and ends them.
do $$
declare
    v_name text;
begin
    if to_regclass('hikvision_sync.pairs') is not null
       and to_regclass('hikvision_sync.numbers') is null then  -- an earlier version's
        create table hikvision_sync.numbers (
            hardware text not null, employee_no text not null, employee_id uuid not null,
            there boolean not null default true, primary key (hardware, employee_no));
        begin
            insert into hikvision_sync.numbers (hardware, employee_no, employee_id)
                select coalesce(nullif(terminal.device ->> 'serial', ''),
                                terminal.terminal_id::text), pair.employee_no, pair.employee_id
                from hikvision_sync.pairs pair
                join hikvision_sync.terminals terminal using (terminal_id)
                where pair.employee_no is not null on conflict do nothing;
        exception when undefined_column or undefined_table then
            null;   -- so early that it did not know hardware yet
        end;
    end if;
    if to_regclass('hikvision_sync.numbers') is not null then
        if exists (select from hikvision_sync.numbers) then
            for v_name in
                select relation.oid::regclass::text from pg_class relation
                where relation.relnamespace = 'hikvision_sync'::regnamespace
                  and relation.relkind = 'r' and relation.relname <> 'numbers'
            loop
                execute format('drop table %s cascade', v_name);
            end loop;
            for v_name in
                select function.oid::regprocedure::text from pg_proc function
                where function.pronamespace = 'hikvision_sync'::regnamespace
            loop
                execute format('drop function if exists %s cascade', v_name);
            end loop;
            raise notice 'hikvision_sync.numbers stays, because numbers are known to be on '
                'terminals: whoever leaves from now on may pass there. Installed again, this '
                'software ends them. Where the terminals are emptied by hand: '
                'drop schema hikvision_sync cascade';
            return;
        end if;
    end if;
    drop schema if exists hikvision_sync cascade;
end $$;

notify pgrst, 'reload schema';

commit;
