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
    if (select count(*) from hikvision_sync.files applied
        where applied.name in ('0001_tables', '0002_ledger') and applied.version = 2) < 2 then
        raise exception 'sql/0001_tables.sql and sql/0002_ledger.sql come first: run them, and then '
            'this file again';      -- else its triggers would fail each save of HR
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

-- HR may drop, rename or alter any column at any time, and no save may fail for it. So no trigger
-- names a column, and each of ours is read by its name where there is one, and as null where not:
--
--     from (select null::text as nume) missing cross join lateral
--          (select nume::text from (select row.*) found) read
--
-- Without a column `nume` the inner `nume` is that of `missing`. (to_jsonb(row) would do it too, but
-- carries every wide column about, and fails a save with a json that is no jsonb.) `missing` stands
-- in each part anew: shared, it would be joined by a nested loop, which is off here, and every save
-- would be compiled for its cost. Where a column is missing that counts, nobody can tell any more
-- what changed: every row of the save counts as an edit, and a WARNING says what to mend.

-- Warn of those columns that one of HR's tables lacks and must not, and say whether it lacks any.
create or replace function hikvision_sync.lacks(p_table text, p_columns text[])
returns boolean language plpgsql set search_path = '' as $$
declare
    v_lost record;
    v_lacks boolean := false;
begin
    for v_lost in select lost.* from hikvision_sync.lost(p_table, p_columns) lost loop
        v_lacks := true;
        raise warning 'hikvision_sync: public.% has no column % any more, so each save there counts '
            'as an edit. Rename it back: alter table public.% rename column % to %',
            p_table, v_lost.name, p_table,
            coalesce(quote_ident(v_lost.now), '<its new name>'), v_lost.name;
    end loop;
    return v_lacks;
end $$;
drop function if exists hikvision_sync.lacks(text, jsonb, text[]);    -- an earlier version's

-- Write down an edit of every employee of whom the ledger has a pair: nobody can tell which of them
-- were edited. p_again: also of those whose edit waits already.
create or replace function hikvision_sync.everybody_edited(p_again boolean)
returns void language sql security definer set search_path = '' as $$
    insert into hikvision_sync.edits (employee_id)
        select distinct pair.employee_id from hikvision_sync.pairs pair
        where p_again or not exists (select from hikvision_sync.edits waiting
                                     where waiting.employee_id = pair.employee_id)
$$;

-- Write down everybody, and warn, where a save's rows cannot be read: it must not fail for that.
create or replace function hikvision_sync.edited_unread(p_table text, p_sqlstate text)
returns void language plpgsql security definer set search_path = '' as $$
begin
    raise warning 'hikvision_sync: what was saved in public.% cannot be read (%), so it counts as an '
        'edit of everybody: see `receiver check`', p_table, p_sqlstate;
    perform hikvision_sync.everybody_edited(false);
end $$;

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
    v_doubt boolean;
    v_ids text[];
begin
    begin
        v_doubt := hikvision_sync.lacks('angajati', '{id,nume,prenume,nume_complet,status}');
        if tg_op = 'INSERT' then
            select array_agg(read.id) into v_ids
            from (select null::text as id) missing cross join new_rows new_row
            cross join lateral (select id::text as id from (select new_row.*) found) read;
        elsif tg_op = 'DELETE' then
            select array_agg(read.id) into v_ids
            from (select null::text as id) missing cross join old_rows old_row
            cross join lateral (select id::text as id from (select old_row.*) found) read;
        else
            with new_one as (
                select read.*
                from (select null::text as id, null::text as nume, null::text as prenume,
                             null::text as nume_complet, null::text as status) missing
                cross join new_rows new_row cross join lateral (
                    select id::text as id, row(
                               nume::text collate "C", prenume::text collate "C",
                               nume_complet::text collate "C", status::text collate "C") as told
                    from (select new_row.*) found) read
            ), old_one as (
                select read.*
                from (select null::text as id, null::text as nume, null::text as prenume,
                             null::text as nume_complet, null::text as status) missing
                cross join old_rows old_row cross join lateral (
                    select id::text as id, row(
                               nume::text collate "C", prenume::text collate "C",
                               nume_complet::text collate "C", status::text collate "C") as told
                    from (select old_row.*) found) read
            )
            select array_agg(coalesce(new_one.id, old_one.id)) into v_ids
            from new_one full join old_one on old_one.id = new_one.id
            where v_doubt or old_one.id is null or new_one.id is null   -- also one whose id changed
               or new_one.told is distinct from old_one.told;
        end if;
    exception when others then
        perform hikvision_sync.edited_unread('angajati', sqlstate);
        return null;
    end;
    if v_ids is null then
        return null;
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
    v_doubt boolean;
    v_ids text[];
    v_records jsonb;
begin
    begin
        v_doubt := hikvision_sync.lacks(
            'angajati_biometrie', '{angajat_id,employee_no,foto_fata_url}');
        if tg_op = 'INSERT' then
            select array_agg(read.whose), jsonb_agg(read.record) into v_ids, v_records
            from (select null::text as id, null::text as angajat_id) missing
            cross join new_rows new_row cross join lateral (
                select angajat_id::text as whose,
                       jsonb_build_object('id', id::text, 'angajat_id', angajat_id::text) as record
                from (select new_row.*) found) read;
        elsif tg_op = 'DELETE' then
            select array_agg(read.whose), jsonb_agg(read.record) into v_ids, v_records
            from (select null::text as id, null::text as angajat_id) missing
            cross join old_rows old_row cross join lateral (
                select angajat_id::text as whose,
                       jsonb_build_object('id', id::text, 'angajat_id', angajat_id::text) as record
                from (select old_row.*) found) read;
        else
            with new_one as (
                select read.*
                from (select null::text as id, null::text as angajat_id,
                             null::text as employee_no, null::text as foto_fata_url) missing
                cross join new_rows new_row cross join lateral (
                    select coalesce(id::text, angajat_id::text) as id, angajat_id::text as whose,
                           row(angajat_id::text, employee_no::text collate "C",
                               foto_fata_url::text collate "C") as told
                    from (select new_row.*) found) read
            ), old_one as (
                select read.*
                from (select null::text as id, null::text as angajat_id,
                             null::text as employee_no, null::text as foto_fata_url) missing
                cross join old_rows old_row cross join lateral (
                    select coalesce(id::text, angajat_id::text) as id, angajat_id::text as whose,
                           row(angajat_id::text, employee_no::text collate "C",
                               foto_fata_url::text collate "C") as told
                    from (select old_row.*) found) read
            )
            select array_agg(new_one.whose) || array_agg(old_one.whose),
                   jsonb_agg(jsonb_build_object(
                       'id', coalesce(new_one.id, old_one.id),
                       'angajat_id', coalesce(new_one.whose, old_one.whose)))
            into v_ids, v_records
            from new_one full join old_one on old_one.id = new_one.id
            where v_doubt or old_one.id is null or new_one.id is null
               or new_one.told is distinct from old_one.told;
        end if;
    exception when others then
        perform hikvision_sync.edited_unread('angajati_biometrie', sqlstate);
        return null;
    end;
    if v_ids is null then
        return null;
    end if;
    if v_doubt and exists (
            select from hikvision_sync.lost('angajati_biometrie', '{angajat_id}')) then
        perform hikvision_sync.everybody_edited(false);
    end if;
    perform hikvision_sync.employees_edited(array(
        select distinct edited.id from unnest(v_ids) as edited(id) where edited.id is not null));
    perform hikvision_sync.post_webhooks(tg_op, 'angajati_biometrie', v_records);
    return null;
end $$;

-- Write down everybody after a truncate of angajati or angajati_biometrie: all lost their row. The
-- trigger's argument is the name of the table, which a partition does not have.
-- One webhook wakes the receiver. It is a function of its own, because an earlier version's
-- angajati_edited knows no truncate, and may be put back under this version's triggers.
create or replace function hikvision_sync.truncated()
returns trigger language plpgsql security definer set search_path = '' as $$
declare
    v_table text := coalesce(tg_argv[0], tg_table_name);
begin
    perform hikvision_sync.everybody_edited(true);
    perform hikvision_sync.post_webhooks('DELETE', v_table, (
        select jsonb_build_array(jsonb_build_object(
            case v_table when 'angajati' then 'id' else 'angajat_id' end, pair.employee_id))
        from hikvision_sync.pairs pair limit 1));
    return null;
end $$;

-- Note that a terminal was added, or that its address, credentials or status changed.
-- Promise: a terminal that becomes active is filled with everybody. The reason for its rest may be
-- gone: the terminal is tried again at once, also when a receiver is just finding the old values
-- wrong. It is asked which hardware it is, because other hardware may stand at a changed address.
create or replace function hikvision_sync.dispozitiv_changed()
returns trigger language plpgsql security definer
set search_path = '' set lock_timeout = '200ms' as $$
declare
    c_uuid constant text := '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
    v_new jsonb := '{}';
    v_old jsonb := '{}';
    v_doubt boolean;
begin
    begin
        v_doubt := hikvision_sync.lacks(
            'dispozitive_pontaj', '{id,ip_address,port,username,password_encrypted,status}');
        v_new := to_jsonb(new);
        v_old := case when tg_op = 'UPDATE' then to_jsonb(old) else '{}' end;
    exception when others then    -- a json that is no jsonb: nothing can be read
        v_doubt := true;
    end;
    if not v_doubt
       and (v_new ->> 'ip_address', v_new ->> 'port', v_new ->> 'username',
            v_new ->> 'password_encrypted', v_new ->> 'status')
           is not distinct from
           (v_old ->> 'ip_address', v_old ->> 'port', v_old ->> 'username',
            v_old ->> 'password_encrypted', v_old ->> 'status')
       and tg_op = 'UPDATE' then
        return null;
    end if;
    if v_new ->> 'id' ~ c_uuid is not true then    -- it could be any, or one that is not known yet
        insert into hikvision_sync.edits (terminal_id, changed)
            select terminal.terminal_id, true from hikvision_sync.terminals terminal
            where not exists (select from hikvision_sync.edits waiting
                              where waiting.terminal_id = terminal.terminal_id)
            union all select gen_random_uuid(), true;
        return null;
    end if;
    begin
        perform hikvision_sync.terminals_changed(array[(v_new ->> 'id')::uuid]);
    exception when serialization_failure or lock_not_available or deadlock_detected then
        -- A receiver wrote that row since this transaction (repeatable read) began, or writes it now
        -- and waits for a table that this transaction has locked. It is noted by whoever fills it.
        insert into hikvision_sync.edits (terminal_id, changed)
            values ((v_new ->> 'id')::uuid, true);
        return null;
    end;
    if not v_new ? 'status'
       or v_new ->> 'status' = 'activ' and v_old ->> 'status' is distinct from 'activ' then
        insert into hikvision_sync.edits (terminal_id) values ((v_new ->> 'id')::uuid);
    end if;
    return null;
end $$;

-- Return one of HR's tables and those whose rows are read with it, the table first.
create or replace function hikvision_sync.family(p_table text)
returns table (relation regclass, relkind "char", relispartition boolean)
language sql stable set search_path = '' as $$
    with recursive family as (
        select to_regclass('public.' || p_table)::oid as oid
        union
        select child.inhrelid from pg_catalog.pg_inherits child
        join family on family.oid = child.inhparent
    )
    select class.oid::regclass, class.relkind, class.relispartition
    from family join pg_catalog.pg_class class on class.oid = family.oid
    where class.relpersistence <> 't'    -- a session's own
$$;

-- Make the triggers of one of HR's tables, and of those that inherit from it or are its partitions:
-- what is saved there is read with the table, and fires its own triggers alone. A child that takes
-- none is warned of, and unheard names it.
-- Postgres allows only one event, and no list of columns, for a trigger with transition tables. So
-- each table has a trigger for each event, and the functions compare the columns.
create or replace function hikvision_sync.listen(p_table text)
returns void language plpgsql set search_path = '' as $$
declare
    v_child record;
begin
    perform hikvision_sync.listen_to(p_table, to_regclass('public.' || p_table));
    for v_child in
        select family.* from hikvision_sync.family(p_table) family
        where family.relation <> to_regclass('public.' || p_table)
    loop
        begin
            if p_table <> 'dispozitive_pontaj' or not v_child.relispartition then
                perform hikvision_sync.listen_to(p_table, v_child.relation);
            end if;     -- a partition has its table's row triggers
        exception when wrong_object_type or insufficient_privilege then
            raise warning 'hikvision_sync: % takes no trigger (%): what is saved there is not heard',
                v_child.relation, sqlerrm;
        end;
    end loop;
end $$;

-- Make the triggers of one of HR's tables on a table of its family.
create or replace function hikvision_sync.listen_to(p_table text, p_relation regclass)
returns void language plpgsql set search_path = '' as $$
declare
    v_event text[];
begin
    if p_table = 'dispozitive_pontaj' then
        foreach v_event slice 1 in array array[['inserted', 'insert'], ['changed', 'update']] loop
            execute format(
                'create or replace trigger hikvision_sync_%s after %s on %s for each row '
                'execute function hikvision_sync.dispozitiv_changed()',
                v_event[1], v_event[2], p_relation);
        end loop;
        return;
    end if;
    foreach v_event slice 1 in array array[
        ['inserted', 'insert', 'referencing new table as new_rows'],
        ['updated', 'update', 'referencing old table as old_rows new table as new_rows'],
        ['deleted', 'delete', 'referencing old table as old_rows']]
    loop
        execute format(
            'create or replace trigger hikvision_sync_%s after %s on %s %s for each statement '
            'execute function hikvision_sync.%I()',
            v_event[1], v_event[2], p_relation, v_event[3], p_table || '_edited');
    end loop;
    execute format(
        'create or replace trigger hikvision_sync_truncated after truncate on %s for each '
        'statement execute function hikvision_sync.truncated(%L)', p_relation, p_table);
end $$;

-- Say why some edits of HR's tables are not heard, and what mends it; null: all are. p_all: also
-- those that are not made through the tables themselves. Of a partition nothing is said: what is
-- saved through its table is heard.
create or replace function public.hikvision_sync_unheard(p_all boolean)
returns text language plpgsql stable security definer set search_path = '' as $$
begin
    return (
    with members as (
        select listened.name, family.*,
               family.relation = to_regclass('public.' || listened.name) as is_itself
        from unnest(array['angajati', 'angajati_biometrie', 'dispozitive_pontaj'])
             as listened(name)
        cross join lateral hikvision_sync.family(listened.name) family
    ), expected as (
        select members.relation, 'hikvision_sync_' || expected.name as trigger,
               ours.tgname is not null as is_there
        from members
        cross join lateral unnest(
            case members.name when 'dispozitive_pontaj' then array['inserted', 'changed']
                 else array['inserted', 'updated', 'deleted', 'truncated'] end) as expected(name)
        left join pg_catalog.pg_trigger ours
            on ours.tgrelid = members.relation and ours.tgname = 'hikvision_sync_' || expected.name
        where members.relkind in ('r', 'p')
          and (members.is_itself or p_all and not members.relispartition)
          and (ours.tgname is null or ours.tgenabled not in ('O', 'A'))
    ), faults as (
        select format('saves in %s are not heard, because it has no trigger %s: run '
                      'sql/0003_triggers.sql, and then select * from hikvision_sync_want(null)',
                      expected.relation, string_agg(expected.trigger, ', ')) as words
        from expected where not expected.is_there group by expected.relation
        union all
        select format('saves in %1$s are not heard, because a trigger is not enabled: alter table '
                      '%1$s enable trigger %2$s', expected.relation, expected.trigger)
        from expected where expected.is_there
        union all
        select format('saves in %s are not heard, because it is no table', members.relation)
        from members
        where members.relkind not in ('r', 'p') and (members.is_itself or p_all)
        union all
        select format('saves in %s are not heard, because it has a rule: drop rule %I on %1$s',
                      members.relation, rule.rulename)
        from members
        join pg_catalog.pg_rewrite rule
            on rule.ev_class = members.relation and rule.ev_type in ('2', '3', '4')
        where members.relkind in ('r', 'p') and p_all
        union all
        select format('changes of %s.%s are not heard, because it is a virtual column: make it a '
                      'stored one', members.relation, attribute.attname)
        from members
        join hikvision_sync.columns_that_count() counting on counting.table_name = members.name
        join pg_catalog.pg_attribute attribute
            on attribute.attrelid = members.relation
               and attribute.attname = counting.column_name
               and not attribute.attisdropped and attribute.attgenerated = 'v'
        where p_all
    )
    select string_agg(faults.words, '; ' order by faults.words) from faults);
end $$;

select hikvision_sync.grant_to_service_role();

notify pgrst, 'reload schema';

commit;

begin;
set local lock_timeout = '2s';

select hikvision_sync.listen('angajati');

commit;

begin;
set local lock_timeout = '2s';

select hikvision_sync.listen('angajati_biometrie');

commit;

begin;
set local lock_timeout = '2s';

select hikvision_sync.listen('dispozitive_pontaj');

insert into hikvision_sync.files (name, version) values ('0003_triggers', 2)
    on conflict (name) do update set version = excluded.version;

commit;
