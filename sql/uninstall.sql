-- Take everything of ours out of the database. Safe to run twice, and after a partial install.
-- The two Vault secrets are the operator's: delete from vault.secrets where name like
-- 'hikvision_sync_%' removes them too.

begin;

drop trigger if exists hikvision_sync_inserted on public.angajati;
drop trigger if exists hikvision_sync_updated on public.angajati;
drop trigger if exists hikvision_sync_deleted on public.angajati;
drop trigger if exists hikvision_sync_inserted on public.angajati_biometrie;
drop trigger if exists hikvision_sync_updated on public.angajati_biometrie;
drop trigger if exists hikvision_sync_deleted on public.angajati_biometrie;
drop trigger if exists hikvision_sync_inserted on public.dispozitive_pontaj;
drop trigger if exists hikvision_sync_changed on public.dispozitive_pontaj;

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
