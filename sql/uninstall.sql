-- Take everything of ours out of the database. Safe to run twice, and after a partial install.
-- The two Vault secrets are the operator's: delete from vault.secrets where name like
-- 'hikvision_sync_%' removes them too.
--
-- A transaction here locks one of HR's tables at most: two could deadlock with a save that writes
-- them in another order. And it gives up after waiting 2 s, because all later saves wait behind it:
-- then run the file again. Once no trigger is left, no save holds a table of ours: each drop has
-- waited for those that had fired it.

begin;
set local lock_timeout = '2s';

drop trigger if exists hikvision_sync_inserted on public.angajati;
drop trigger if exists hikvision_sync_updated on public.angajati;
drop trigger if exists hikvision_sync_deleted on public.angajati;

commit;

begin;
set local lock_timeout = '2s';

drop trigger if exists hikvision_sync_inserted on public.angajati_biometrie;
drop trigger if exists hikvision_sync_updated on public.angajati_biometrie;
drop trigger if exists hikvision_sync_deleted on public.angajati_biometrie;

commit;

begin;
set local lock_timeout = '2s';

drop trigger if exists hikvision_sync_inserted on public.dispozitive_pontaj;
drop trigger if exists hikvision_sync_changed on public.dispozitive_pontaj;

commit;

begin;

do $$
declare
    f regprocedure;
begin
    for f in select p.oid::regprocedure from pg_proc p
             where p.pronamespace = 'public'::regnamespace and p.proname like 'hikvision\_sync\_%'
    loop
        execute format('drop function %s', f);
    end loop;
end $$;

drop schema if exists hikvision_sync cascade;

notify pgrst, 'reload schema';

commit;
