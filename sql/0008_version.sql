-- The version of these SQL files. Needs 0001 to 0007. Safe to run again.
--
-- It is the last file, and refuses where one of the others was not applied in this version. The
-- number, which each file has, grows by one whenever any of them changes after it may have been
-- installed.

begin;

do $$
declare
    v_missing text := (
        select string_agg('sql/' || needed.name || '.sql', ', ' order by needed.name)
        from unnest(array['0001_tables', '0002_ledger', '0003_triggers', '0004_status',
                          '0005_check', '0006_verification', '0007_company']) as needed(name)
        where not exists (select from hikvision_sync.files applied
                          where applied.name = needed.name and applied.version = 2));
begin
    if v_missing is not null then
        raise exception 'these files were not applied in this version: %. Run them, and then this '
            'file again', v_missing;
    end if;
end $$;

-- Return the version of the SQL that is installed. The receiver works with its own version alone.
create or replace function public.hikvision_sync_version()
returns integer language sql immutable security definer set search_path = '' as $$
    select 2
$$;

select hikvision_sync.grant_to_service_role();

notify pgrst, 'reload schema';

commit;
