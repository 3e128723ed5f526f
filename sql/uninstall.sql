-- Take everything of ours out of the database, whichever version is installed. Safe to run again,
-- and after a partial installation.
-- The two Vault secrets belong to the operator: delete from vault.secrets where name like
-- 'hikvision_sync_%' removes them too.
--
-- A transaction that locked two of HR's tables could deadlock with a save that writes them in
-- another order, so each transaction here locks one at most. It gives up after waiting for 2 s,
-- because all later saves wait behind it: then run the file again. Once no trigger is left, no save
-- holds a table of ours, because each drop has waited for the saves that had fired the trigger.

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

drop schema if exists hikvision_sync cascade;

notify pgrst, 'reload schema';

commit;
