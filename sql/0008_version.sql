-- The version of these SQL files. Needs 0001 to 0007. Safe to run again.
--
-- It is the last file, so that the database says this version only where all the others have been
-- applied. The number grows by one whenever any file changes after it may have been installed.

begin;

-- Return the version of the SQL that is installed. The receiver works with its own version alone.
create or replace function public.hikvision_sync_version()
returns integer language sql immutable security definer set search_path = '' as $$
    select 1
$$;

select hikvision_sync.grant_to_service_role();

notify pgrst, 'reload schema';

commit;
