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

-- Write down who was edited in angajati, after each statement that inserts, updates or deletes.
-- Promise: it writes down every employee who is new or gone, or whose name or status changed.
create or replace function hikvision_sync.angajati_edited()
returns trigger language plpgsql security definer set search_path = '' as $$
declare
    v_ids uuid[];
begin
    if tg_op = 'INSERT' then
        select array_agg(new_row.id) into v_ids from new_rows new_row;
    elsif tg_op = 'DELETE' then
        select array_agg(old_row.id) into v_ids from old_rows old_row;
    else
        select array_agg(new_row.id) into v_ids
        from new_rows new_row left join old_rows old_row on old_row.id = new_row.id
        where old_row.id is null   -- its id was changed: a new employee to the terminals
           or (new_row.nume, new_row.prenume, new_row.nume_complet, new_row.status)
              is distinct from
              (old_row.nume, old_row.prenume, old_row.nume_complet, old_row.status);
    end if;
    insert into hikvision_sync.edits (employee_id) select unnest(v_ids);
    perform hikvision_sync.post_webhooks(tg_op, 'angajati', (
        select jsonb_agg(jsonb_build_object('id', edited.id)) from unnest(v_ids) as edited(id)));
    return null;
end $$;

-- Write down whose row in angajati_biometrie was edited, after each statement that inserts, updates
-- or deletes.
-- Promise: it writes down every employee whose row is new or gone, or whose number or photo
-- changed. A row that moved from one employee to another writes down both.
create or replace function hikvision_sync.angajati_biometrie_edited()
returns trigger language plpgsql security definer set search_path = '' as $$
declare
    v_ids uuid[];
    v_records jsonb;
begin
    if tg_op = 'INSERT' then
        select array_agg(new_row.angajat_id),
               jsonb_agg(jsonb_build_object('id', new_row.id, 'angajat_id', new_row.angajat_id))
        into v_ids, v_records from new_rows new_row;
    elsif tg_op = 'DELETE' then
        select array_agg(old_row.angajat_id),
               jsonb_agg(jsonb_build_object('id', old_row.id, 'angajat_id', old_row.angajat_id))
        into v_ids, v_records from old_rows old_row;
    else
        select array_agg(new_row.angajat_id) || array_agg(old_row.angajat_id),
               jsonb_agg(jsonb_build_object('id', new_row.id, 'angajat_id', new_row.angajat_id))
        into v_ids, v_records
        from new_rows new_row left join old_rows old_row on old_row.id = new_row.id
        where old_row.id is null
           or (new_row.angajat_id, new_row.employee_no, new_row.foto_fata_url)
              is distinct from
              (old_row.angajat_id, old_row.employee_no, old_row.foto_fata_url);
    end if;
    insert into hikvision_sync.edits (employee_id)
        select distinct edited.id from unnest(v_ids) as edited(id) where edited.id is not null;
    perform hikvision_sync.post_webhooks(tg_op, 'angajati_biometrie', v_records);
    return null;
end $$;

-- Write down everybody of whom the ledger has a pair, after angajati or angajati_biometrie was
-- emptied: a truncate fires no other trigger. No webhook is sent; a receiver finds it by itself.
create or replace function hikvision_sync.table_emptied()
returns trigger language plpgsql security definer set search_path = '' as $$
begin
    insert into hikvision_sync.edits (employee_id)
        select distinct pair.employee_id from hikvision_sync.pairs pair;
    return null;
end $$;

-- Note that a terminal was added, or that its address, credentials or status changed.
-- Promise: a terminal that becomes active is filled with everybody. The reason for its rest may be
-- gone: the terminal is tried again at once, also when a receiver is just finding the old values
-- wrong. It is asked which hardware it is, because other hardware may stand at a changed address.
create or replace function hikvision_sync.dispozitiv_changed()
returns trigger language plpgsql security definer set search_path = '' as $$
begin
    update hikvision_sync.terminals terminal set
        changed_at = clock_timestamp(), failures = 0, looked_at = '-infinity',
        rests_until = null, rest_reason = null, login_refused = false
    where terminal.terminal_id = new.id;
    if new.status = 'activ' and (tg_op = 'INSERT' or old.status is distinct from 'activ') then
        insert into hikvision_sync.edits (terminal_id) values (new.id);
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
create or replace trigger hikvision_sync_emptied
    after truncate on public.angajati
    for each statement execute function hikvision_sync.table_emptied();

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
create or replace trigger hikvision_sync_emptied
    after truncate on public.angajati_biometrie
    for each statement execute function hikvision_sync.table_emptied();

commit;

begin;
set local lock_timeout = '2s';

create or replace trigger hikvision_sync_inserted
    after insert on public.dispozitive_pontaj
    for each row execute function hikvision_sync.dispozitiv_changed();
create or replace trigger hikvision_sync_changed
    after update of ip_address, port, username, password_encrypted, status
    on public.dispozitive_pontaj
    for each row
    when ((old.ip_address, old.port, old.username, old.password_encrypted, old.status)
          is distinct from
          (new.ip_address, new.port, new.username, new.password_encrypted, new.status))
    execute function hikvision_sync.dispozitiv_changed();

commit;
