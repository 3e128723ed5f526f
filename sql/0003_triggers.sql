-- The triggers: HR's edits become rows of hikvision_sync.edits (certain), then signed webhooks
-- (fast). Needs 0001 and 0002. Safe to run again.
--
-- Nothing here may break HR's save. The insert into edits is part of HR's transaction, because an
-- edit that is not written down is lost. All that comes after it (Vault, signature, pg_net) only
-- makes things faster: when it fails, it raises a WARNING, and the receiver finds the edit by
-- itself.
--
-- A transaction that locked two of HR's tables could deadlock with a save that writes them in
-- another order, so each transaction here locks one at most. It gives up after waiting for 2 s,
-- because all later saves wait behind it: then run the file again. So the functions come first, and
-- work under an earlier version's triggers too.

begin;

do $$ begin
    if to_regprocedure('extensions.hmac(bytea,bytea,text)') is null then
        raise exception 'pgcrypto is not in the schema extensions: enable it there '
            '(Database, Extensions), and run this file again';
    end if;
end $$;

-- Sign a webhook as Standard Webhooks 1.0.0 says: HMAC-SHA256 over `id.timestamp.body`, in base64.
-- Promise: it signs exactly the bytes that pg_net sends, which are convert_to(body::text, 'UTF8')
-- of the same jsonb value. p_secret is `whsec_` and the key in base64.
create or replace function hikvision_sync.sign(
    p_secret text, p_id text, p_timestamp bigint, p_body jsonb
) returns text language sql volatile set search_path = '' as $$
    select 'v1,' || encode(
        extensions.hmac(
            convert_to(p_id || '.' || p_timestamp || '.' || p_body::text, 'UTF8'),
            decode(substr(p_secret, 7), 'base64'),
            'sha256'),
        'base64')
$$;

-- Post one signed, thin webhook for each of p_records (a jsonb array).
-- Promise: it never raises, except that a statement timeout may end it. p_records must hold ids
-- only, because they leave the database.
-- A session that locks pg_net's queue, the Vault or posts (VACUUM FULL, TRUNCATE) would keep HR
-- waiting until a statement timeout ends the save. lock_timeout prevents that, and ends with the
-- function. It is short, because a transaction may save many times, and each save would wait.
-- The time is clock_timestamp() and not now(): HR's transaction may have begun longer ago than the
-- five minutes that the receiver allows.
create or replace function hikvision_sync.post_webhooks(
    p_type text, p_table text, p_records jsonb
) returns void language plpgsql security definer
set search_path = '' set lock_timeout = '200ms' as $$
declare
    v_url text;
    v_secret text;
begin
    if p_records is null then
        return;
    end if;
    select secret.decrypted_secret into v_url
        from vault.decrypted_secrets secret where secret.name = 'hikvision_sync_webhook_url';
    select secret.decrypted_secret into v_secret
        from vault.decrypted_secrets secret where secret.name = 'hikvision_sync_webhook_secret';
    if v_url is null or v_secret is null or v_secret !~ '^whsec_[A-Za-z0-9+/]+={0,2}$' then
        raise warning 'hikvision_sync: no webhook sent: create the Vault secrets '
            'hikvision_sync_webhook_url and hikvision_sync_webhook_secret (whsec_…). '
            'The edit is kept; the receiver will find it by itself.';
        return;
    end if;
    -- The planner does not flatten a subquery with volatile functions. So the id and the time of an
    -- event are made once, and the bytes that are signed are the bytes that are sent.
    insert into hikvision_sync.posts (request_ids)
    select array_agg(net.http_post(
        url := v_url,
        body := event.body,
        headers := jsonb_build_object(
            'Content-Type', 'application/json',
            'webhook-id', event.id,
            'webhook-timestamp', event.at::text,
            'webhook-signature', hikvision_sync.sign(v_secret, event.id, event.at, event.body)),
        timeout_milliseconds := 5000))
    from (
        select 'msg_' || replace(gen_random_uuid()::text, '-', '') as id,
               floor(extract(epoch from clock_timestamp()))::bigint as at,
               jsonb_build_object('type', p_type, 'schema', 'public', 'table', p_table,
                                  'record', case when p_type <> 'DELETE' then edited.record end,
                                  'old_record', case when p_type = 'DELETE' then edited.record end
               ) as body
        from jsonb_array_elements(p_records) as edited(record)
    ) event;
exception when others or assert_failure then    -- others alone leaves that out
    raise warning 'hikvision_sync: no webhook sent (% %). '
        'The edit is kept; the receiver will find it by itself.', sqlstate, sqlerrm;
end $$;

-- HR may drop, rename or alter any column at any time, and no save may fail for it. So values are
-- read and compared as `to_jsonb(row) ->> 'column'`, and no trigger names a column. Where a column
-- is missing that counts, nobody can tell any more what changed: every row of the save counts as an
-- edit, and a WARNING says what to mend. (nume_complet is no such column: some have none.)

-- Warn of the columns that a row of one of HR's tables lacks, and say whether it lacks any.
create or replace function hikvision_sync.lacks(p_table text, p_row jsonb, p_columns text[])
returns boolean language plpgsql set search_path = '' as $$
declare
    v_lost text := (
        select string_agg(lost.name, ', ') from unnest(p_columns) as lost(name)
        where not p_row ? lost.name);
begin
    if v_lost is not null then
        raise warning 'hikvision_sync: public.% has no column % any more, so each save there counts '
            'as an edit. Rename it back: alter table public.% rename column <its new name> to %',
            p_table, v_lost, p_table, v_lost;
    end if;
    return v_lost is not null;
end $$;

-- Write down an edit of every employee of whom the ledger has a pair: nobody can tell which of them
-- were edited. p_again: also of those whose edit waits already.
create or replace function hikvision_sync.everybody_edited(p_again boolean)
returns void language sql security definer set search_path = '' as $$
    insert into hikvision_sync.edits (employee_id)
        select distinct pair.employee_id from hikvision_sync.pairs pair
        where p_again or not exists (select from hikvision_sync.edits waiting
                                     where waiting.employee_id = pair.employee_id)
$$;

-- Write down the employees with these ids. An id that is missing or no UUID could be anybody's.
create or replace function hikvision_sync.employees_edited(p_ids text[])
returns void language plpgsql security definer set search_path = '' as $$
declare
    v_ids uuid[];
begin
    begin
        v_ids := p_ids;
    exception when invalid_text_representation then
        v_ids := array(
            select case when edited.id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                        then edited.id::uuid end
            from unnest(p_ids) as edited(id));
    end;
    if array_position(v_ids, null) is not null then
        perform hikvision_sync.everybody_edited(false);
        v_ids := array_remove(v_ids, null);
    end if;
    insert into hikvision_sync.edits (employee_id) select unnest(v_ids);
end $$;

-- Write down who was edited in angajati, after each statement that inserts, updates or deletes.
-- Promise: it writes down every employee who is new or gone, or whose name or status changed.
-- Without nested loops: the plan of a session's first save of one row is kept, and would compare
-- every row of a later save of everybody with every other.
create or replace function hikvision_sync.angajati_edited()
returns trigger language plpgsql security definer
set search_path = '' set enable_nestloop = off as $$
declare
    v_row jsonb;
    v_doubt boolean;
    v_ids text[];
begin
    if tg_op = 'DELETE' then
        select to_jsonb(old_row) into v_row from old_rows old_row limit 1;
    else
        select to_jsonb(new_row) into v_row from new_rows new_row limit 1;
    end if;
    if v_row is null then
        return null;
    end if;
    v_doubt := hikvision_sync.lacks('angajati', v_row, '{id,nume,prenume,status}');
    if tg_op = 'DELETE' then
        select array_agg(to_jsonb(old_row) ->> 'id') into v_ids from old_rows old_row;
    elsif tg_op = 'INSERT' or v_doubt then
        select array_agg(to_jsonb(new_row) ->> 'id') into v_ids from new_rows new_row;
    else
        select array_agg(new_one.stored ->> 'id') into v_ids
        from (select to_jsonb(new_row) as stored from new_rows new_row offset 0) new_one
        left join (select to_jsonb(old_row) as stored from old_rows old_row offset 0) old_one
            on old_one.stored ->> 'id' = new_one.stored ->> 'id'
        where old_one.stored is null   -- its id was changed: a new employee to the terminals
           or (new_one.stored ->> 'nume', new_one.stored ->> 'prenume',
               new_one.stored ->> 'nume_complet', new_one.stored ->> 'status')
              is distinct from
              (old_one.stored ->> 'nume', old_one.stored ->> 'prenume',
               old_one.stored ->> 'nume_complet', old_one.stored ->> 'status');
    end if;
    perform hikvision_sync.employees_edited(v_ids);
    perform hikvision_sync.post_webhooks(tg_op, 'angajati', (
        select jsonb_agg(jsonb_build_object('id', edited.id)) from unnest(v_ids) as edited(id)
        where edited.id is not null));
    return null;
end $$;

-- Write down whose row in angajati_biometrie was edited, after each statement that inserts, updates
-- or deletes.
-- Promise: it writes down every employee whose row is new or gone, or whose number or photo
-- changed. A row that moved from one employee to another writes down both. A row of nobody writes
-- down nobody.
create or replace function hikvision_sync.angajati_biometrie_edited()
returns trigger language plpgsql security definer
set search_path = '' set enable_nestloop = off as $$
declare
    v_row jsonb;
    v_doubt boolean;
    v_ids text[];
    v_records jsonb;
begin
    if tg_op = 'DELETE' then
        select to_jsonb(old_row) into v_row from old_rows old_row limit 1;
    else
        select to_jsonb(new_row) into v_row from new_rows new_row limit 1;
    end if;
    if v_row is null then
        return null;
    end if;
    v_doubt := hikvision_sync.lacks(
        'angajati_biometrie', v_row, '{id,angajat_id,employee_no,foto_fata_url}');
    if tg_op = 'DELETE' then
        select array_agg(old_one.stored ->> 'angajat_id'),
               jsonb_agg(jsonb_build_object('id', old_one.stored -> 'id',
                                            'angajat_id', old_one.stored -> 'angajat_id'))
        into v_ids, v_records
        from (select to_jsonb(old_row) as stored from old_rows old_row offset 0) old_one;
    elsif tg_op = 'INSERT' then
        select array_agg(new_one.stored ->> 'angajat_id'),
               jsonb_agg(jsonb_build_object('id', new_one.stored -> 'id',
                                            'angajat_id', new_one.stored -> 'angajat_id'))
        into v_ids, v_records
        from (select to_jsonb(new_row) as stored from new_rows new_row offset 0) new_one;
    else
        select array_agg(new_one.stored ->> 'angajat_id')
               || array_agg(old_one.stored ->> 'angajat_id'),
               jsonb_agg(jsonb_build_object('id', new_one.stored -> 'id',
                                            'angajat_id', new_one.stored -> 'angajat_id'))
        into v_ids, v_records
        from (select to_jsonb(new_row) as stored from new_rows new_row offset 0) new_one
        left join (select to_jsonb(old_row) as stored from old_rows old_row offset 0) old_one
            on old_one.stored ->> 'id' = new_one.stored ->> 'id'
        where old_one.stored is null or v_doubt
           or (new_one.stored ->> 'angajat_id', new_one.stored ->> 'employee_no',
               new_one.stored ->> 'foto_fata_url')
              is distinct from
              (old_one.stored ->> 'angajat_id', old_one.stored ->> 'employee_no',
               old_one.stored ->> 'foto_fata_url');
        if not v_row ? 'id' then    -- which old row became which new one cannot be known
            select v_ids || array_agg(to_jsonb(old_row) ->> 'angajat_id') into v_ids
            from old_rows old_row;
        end if;
    end if;
    if not v_row ? 'angajat_id' then
        perform hikvision_sync.everybody_edited(false);
    end if;
    perform hikvision_sync.employees_edited(array(
        select distinct edited.id from unnest(v_ids) as edited(id) where edited.id is not null));
    perform hikvision_sync.post_webhooks(tg_op, 'angajati_biometrie', v_records);
    return null;
end $$;

-- Write down everybody after a truncate of angajati or angajati_biometrie: all lost their row.
-- One webhook wakes the receiver. It is a function of its own, because an earlier version's
-- angajati_edited knows no truncate, and may be put back under this version's triggers.
create or replace function hikvision_sync.truncated()
returns trigger language plpgsql security definer set search_path = '' as $$
begin
    perform hikvision_sync.everybody_edited(true);
    perform hikvision_sync.post_webhooks('DELETE', tg_table_name::text, (
        select jsonb_build_array(jsonb_build_object(
            case tg_table_name when 'angajati' then 'id' else 'angajat_id' end, pair.employee_id))
        from hikvision_sync.pairs pair limit 1));
    return null;
end $$;

-- Note that a terminal was added, or that its address, credentials or status changed.
-- Promise: a terminal that becomes active is filled with everybody. The reason for its rest may be
-- gone: the terminal is tried again at once, also when a receiver is just finding the old values
-- wrong. It is asked which hardware it is, because other hardware may stand at a changed address.
create or replace function hikvision_sync.dispozitiv_changed()
returns trigger language plpgsql security definer set search_path = '' as $$
declare
    c_uuid constant text := '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
    v_new jsonb := to_jsonb(new);
    v_old jsonb := case when tg_op = 'UPDATE' then to_jsonb(old) else '{}' end;
    v_doubt boolean := hikvision_sync.lacks(
        'dispozitive_pontaj', v_new, '{id,ip_address,username,password_encrypted,status}');
begin
    if not v_doubt
       and (v_new ->> 'ip_address', v_new ->> 'port', v_new ->> 'username',
            v_new ->> 'password_encrypted', v_new ->> 'status')
           is not distinct from
           (v_old ->> 'ip_address', v_old ->> 'port', v_old ->> 'username',
            v_old ->> 'password_encrypted', v_old ->> 'status')
       and tg_op = 'UPDATE' then
        return null;
    end if;
    if v_new ->> 'id' ~ c_uuid is not true then    -- it could be any
        insert into hikvision_sync.edits (terminal_id)
            select terminal.terminal_id from hikvision_sync.terminals terminal
            where not exists (select from hikvision_sync.edits waiting
                              where waiting.terminal_id = terminal.terminal_id);
        return null;
    end if;
    update hikvision_sync.terminals terminal set
        changed_at = clock_timestamp(), failures = 0, looked_at = '-infinity',
        rests_until = null, rest_reason = null, login_refused = false
    where terminal.terminal_id = (v_new ->> 'id')::uuid;
    if not v_new ? 'status'
       or v_new ->> 'status' = 'activ' and v_old ->> 'status' is distinct from 'activ' then
        insert into hikvision_sync.edits (terminal_id) values ((v_new ->> 'id')::uuid);
    end if;
    return null;
end $$;

select hikvision_sync.grant_to_service_role();

commit;

-- Postgres allows only one event, and no list of columns, for a trigger with transition tables. So
-- each table has a trigger for each event, and the functions compare the columns.
begin;
set local lock_timeout = '2s';

create or replace trigger hikvision_sync_inserted
    after insert on public.angajati
    referencing new table as new_rows
    for each statement execute function hikvision_sync.angajati_edited();
create or replace trigger hikvision_sync_updated
    after update on public.angajati
    referencing old table as old_rows new table as new_rows
    for each statement execute function hikvision_sync.angajati_edited();
create or replace trigger hikvision_sync_deleted
    after delete on public.angajati
    referencing old table as old_rows
    for each statement execute function hikvision_sync.angajati_edited();
create or replace trigger hikvision_sync_truncated
    after truncate on public.angajati
    for each statement execute function hikvision_sync.truncated();

commit;

begin;
set local lock_timeout = '2s';

create or replace trigger hikvision_sync_inserted
    after insert on public.angajati_biometrie
    referencing new table as new_rows
    for each statement execute function hikvision_sync.angajati_biometrie_edited();
create or replace trigger hikvision_sync_updated
    after update on public.angajati_biometrie
    referencing old table as old_rows new table as new_rows
    for each statement execute function hikvision_sync.angajati_biometrie_edited();
create or replace trigger hikvision_sync_deleted
    after delete on public.angajati_biometrie
    referencing old table as old_rows
    for each statement execute function hikvision_sync.angajati_biometrie_edited();
create or replace trigger hikvision_sync_truncated
    after truncate on public.angajati_biometrie
    for each statement execute function hikvision_sync.truncated();

commit;

begin;
set local lock_timeout = '2s';

create or replace trigger hikvision_sync_inserted
    after insert on public.dispozitive_pontaj
    for each row execute function hikvision_sync.dispozitiv_changed();
create or replace trigger hikvision_sync_changed
    after update on public.dispozitive_pontaj
    for each row execute function hikvision_sync.dispozitiv_changed();

commit;
