-- What `receiver check` asks the database. Needs 0001 to 0003. Safe to run again.

begin;

-- Say what became of the newest webhooks: at most 40, of the last hour, the newest first.
-- Promise: it returns no content of a request or an answer, and nothing of pg_net's other users: a
-- request is ours where `posts` has its id. `ends` is one word for each: accepted, unsigned (401),
-- late (401, by its timestamp), refused (any other answer of the receiver), status (an answer that
-- is not the receiver's), timeout, error, queued, `under way`, lost (neither queued nor answered
-- after a minute). Beside it are the newest status of the kinds refused and status, pg_net's newest
-- error, and for how many seconds the oldest has been queued.
create or replace function hikvision_sync.webhook_ends() returns jsonb
language plpgsql stable security definer set search_path = '' as $$
begin
    return (
    with ours as (
        select request.id, post.posted_at from (
            select * from hikvision_sync.posts
            where posted_at > clock_timestamp() - interval '1 hour'
            order by posted_at desc limit 40
        ) post cross join lateral unnest(post.request_ids) as request(id)
        order by post.posted_at desc, request.id desc limit 40
    ), answers as (  -- one that was sent twice has two
        select distinct on (response.id) response.* from net._http_response response
        where response.created > clock_timestamp() - interval '1 hour'
          and response.id in (select ours.id from ours)
        order by response.id, response.created desc
    ), known as (
        select ours.id, ours.posted_at, answer.status_code, answer.error_msg, case
            when answer.status_code = 202 and answer.content like '{"accepted"%' then 'accepted'
            when answer.status_code = 401 and answer.content_type like 'application/problem+json%'
                then case when answer.content like '%over 5 minutes off%'
                          then 'late' else 'unsigned' end
            when answer.content_type like 'application/problem+json%' then 'refused'
            when answer.status_code is not null then 'status'
            when answer.timed_out then 'timeout'
            when answer.id is not null then 'error'
            when queued.id is not null then 'queued'
            when ours.posted_at < clock_timestamp() - interval '1 minute' then 'lost'
            else 'under way' end as ends
        from ours
        left join answers answer on answer.id = ours.id
        left join net.http_request_queue queued on queued.id = ours.id
    )
    select jsonb_build_object(
        'ends', coalesce(jsonb_agg(known.ends order by known.posted_at desc, known.id desc), '[]'),
        'status', (array_agg(known.status_code order by known.posted_at desc, known.id desc)
                   filter (where known.ends in ('refused', 'status')))[1],
        'error', (array_agg(left(known.error_msg, 200) order by known.posted_at desc, known.id desc)
                  filter (where known.ends = 'error'))[1],
        'queued_s', extract(epoch from clock_timestamp()
                            - min(known.posted_at) filter (where known.ends = 'queued')))
    from known);
end $$;

-- Say how the work goes as a whole: how many edits no receiver has taken, and for how long the
-- oldest of them has waited; for how long a pair that could have been claimed was not; how long ago
-- a terminal that does not rest was looked at; and how long ago a receiver was last seen. All times
-- are in seconds. A check counts as no receiver: its leases bear its name, `check:…`.
create or replace function hikvision_sync.work() returns jsonb
language sql volatile security definer set search_path = '' set row_security = off as $$
    select jsonb_build_object(
        'edits', (select count(*) from hikvision_sync.edits),
        'edits_s', (select extract(epoch from clock.now - min(edit.edited_at))
                    from hikvision_sync.edits edit),
        'due_s', (
            select extract(epoch from clock.now - min(greatest(
                pair.next_attempt_at, terminal.rests_until, terminal.free_at,
                terminal.leased_until, terminal.changed_at)))
            from hikvision_sync.pairs pair
            join public.dispozitive_pontaj device
                on device.id = pair.terminal_id and device.status = 'activ'
            join hikvision_sync.terminals terminal on terminal.terminal_id = pair.terminal_id
            where pair.wanted > pair.done),
        'looked_s', (
            select extract(epoch from clock.now - min(greatest(
                terminal.looked_at, terminal.rests_until, terminal.free_at,
                terminal.leased_until, terminal.changed_at)))
            from hikvision_sync.terminals terminal
            join public.dispozitive_pontaj device
                on device.id = terminal.terminal_id and device.status = 'activ'
            where terminal.looked_at is not null),
        'seen_s', extract(epoch from clock.now - greatest(
            (select max(pair.recorded_at) from hikvision_sync.pairs pair),
            (select max(case
                 when terminal.leased_by not like 'check:%'
                 then least(terminal.leased_until, clock.now)
                 when terminal.leased_by is null and terminal.last_held_by not like 'check:%'
                 then least(terminal.free_at, clock.now) end)
             from hikvision_sync.terminals terminal))))
    from (select clock_timestamp() as now) clock
$$;

-- Return one row for each active terminal: who holds it, whether it rests, how its pairs stand.
-- Promise: a reason names no person: a person's number is taken out of it.
create or replace function hikvision_sync.terminal_states()
returns table (terminal_id uuid, state jsonb)
language sql volatile security definer set search_path = '' set row_security = off as $$
    with counted as (
        select pair.terminal_id,
               count(*) filter (where pair.wanted > pair.done) as wanted,
               min(pair.wanted_since) filter (where pair.wanted > pair.done) as wanted_since,
               count(*) filter (where pair.wanted = pair.done
                                  and pair.recorded_at > clock_timestamp() - interval '10 minutes'
               ) as done_lately,
               count(*) filter (where pair.wanted > pair.done and pair.attempts >= 3) as failing,
               count(*) filter (where pair.wanted = pair.done
                                  and pair.status <> 'success') as refused
        from hikvision_sync.pairs pair
        group by pair.terminal_id
    ), said as (     -- most messages name nobody, and need no regular expression
        select pair.terminal_id, pair.wanted > pair.done as failing, case
            when strpos(pair.message, pair.number) > 0 then regexp_replace(
                pair.message, '(?<![0-9.])' || regexp_replace(pair.number, '\W', '\\\&', 'g')
                              || '(?![0-9]|[.][0-9])', '…', 'g')
            else pair.message end as message
        from (
            select stored.*,
                   nullif(coalesce(stored.employee_no, numbered.employee_no), '') as number
            from hikvision_sync.pairs stored
            left join (
                select biometrics.angajat_id, max(biometrics.employee_no)::text as employee_no
                from public.angajati_biometrie biometrics
                group by biometrics.angajat_id
            ) numbered on numbered.angajat_id = stored.employee_id
            where stored.status <> 'success' and stored.message is not null
              and (stored.wanted = stored.done or stored.attempts >= 3)
        ) pair
    ), mostly as (
        select distinct on (said.terminal_id, said.failing)
               said.terminal_id, said.failing, said.message
        from said
        group by said.terminal_id, said.failing, said.message
        order by said.terminal_id, said.failing, count(*) desc, said.message
    )
    select device.id, jsonb_build_object(
        'host', to_jsonb(device.*) ->> 'ip_address',
        'held_by', terminal.leased_by,
        'held_s', extract(epoch from clock.now - terminal.leased_at),
        'lease_left_s', extract(epoch from terminal.leased_until - clock.now),
        'rests_s', case when terminal.rests_until > clock.now
                        then extract(epoch from terminal.rests_until - clock.now) end,
        'rest_reason', terminal.rest_reason,
        'failures', terminal.failures,
        'wanted', coalesce(counted.wanted, 0),
        'wanted_s', extract(epoch from clock.now - counted.wanted_since),
        'done_lately', coalesce(counted.done_lately, 0),
        'failing', coalesce(counted.failing, 0), 'failing_for', failing.message,
        'refused', coalesce(counted.refused, 0), 'refused_for', refused.message)
    from (select clock_timestamp() as now) clock
    cross join public.dispozitive_pontaj device
    left join hikvision_sync.terminals terminal on terminal.terminal_id = device.id
    left join counted on counted.terminal_id = device.id
    left join mostly failing on failing.terminal_id = device.id and failing.failing
    left join mostly refused on refused.terminal_id = device.id and not refused.failing
    where device.status = 'activ'
    order by device.id
$$;

-- Return one row for each active terminal: when it was last asked for everybody, and what it said.
create or replace function hikvision_sync.verifications()
returns table (terminal_id uuid, state jsonb)
language sql volatile security definer set search_path = '' set row_security = off as $$
    select device.id, jsonb_build_object(
        'host', to_jsonb(device.*) ->> 'ip_address',
        'began_s', extract(epoch from clock_timestamp() - terminal.verify_began_at),
        'verified_s', extract(epoch from clock_timestamp() - terminal.verified_at),
        'verified', terminal.verified,
        'going_on', terminal.verification is not null,
        'confirmed_s', (select extract(epoch from clock_timestamp() - min(pair.confirmed_at))
                        from hikvision_sync.pairs pair where pair.terminal_id = device.id))
    from public.dispozitive_pontaj device
    join hikvision_sync.terminals terminal on terminal.terminal_id = device.id
    where device.status = 'activ'
    order by device.id
$$;

-- Say what is wrong with the policies of the receivers that are at work; null: nothing.
create or replace function hikvision_sync.fault_of_policies() returns text
language sql volatile security definer set search_path = '' as $$
    select case when count(distinct receiver.policy) > 1
           then 'receivers at work have different ones ('
                || string_agg(distinct receiver.policy, ', ' order by receiver.policy)
                || '): give all the same LEAVER_POLICY, and restart them' end
    from hikvision_sync.receivers receiver
    where receiver.seen_at > clock_timestamp() - interval '5 minutes'
$$;

-- Name everything that keeps edits from becoming webhooks, and webhooks from becoming work.
-- Promise: each thing that is checked has one row. fault is null where it is well, and otherwise
-- says in words what to do. No secret is returned. The detail of `webhook_secret` is a signature
-- over `receiver-check.0.{}`, which tells the receiver whether its secret is the Vault's; the
-- receiver accepts no webhook under it, because its timestamp is of 1970. The detail of
-- `webhook_url` is the address without path and login. The rows clock, webhooks, work and
-- `terminal <id>` carry figures, which the receiver puts into words, since it knows its own clock
-- and settings; they are null where the figures cannot be had.
create or replace function public.hikvision_sync_check()
returns table (name text, fault text, detail text)
language plpgsql security definer set search_path = '' set row_security = off as $$
#variable_conflict use_column
declare
    v_url text;
    v_secret text;
    v_count bigint;
begin
    return query select 'clock', null::text, extract(epoch from clock_timestamp())::text;
    return query select 'pg_net', case
        when to_regprocedure('net.http_post(text,jsonb,jsonb,jsonb,integer)') is null
        then 'pg_net is not installed: enable it under Database > Extensions' end, null::text;
    return query select 'ledger', case
        when to_regclass('hikvision_sync.posts') is null
        then 'is of an older version: run sql/0001_tables.sql again, then the others' end,
        null::text;
    return query select 'pgcrypto', case
        when to_regprocedure('extensions.hmac(bytea,bytea,text)') is null
        then 'pgcrypto is not in the schema extensions: create extension pgcrypto '
             'schema extensions' end, null::text;
    begin
        select secret.decrypted_secret into v_url
            from vault.decrypted_secrets secret
            where secret.name = 'hikvision_sync_webhook_url';
        select secret.decrypted_secret into v_secret
            from vault.decrypted_secrets secret
            where secret.name = 'hikvision_sync_webhook_secret';
    exception when others then
        return query select 'vault', 'Vault cannot be read: enable it under Database > Extensions',
                            null::text;
    end;
    return query select 'webhook_url', case
        when v_url is null
        then 'the Vault secret hikvision_sync_webhook_url is missing: select vault.create_secret('
             '''https://<receiver>/webhooks/supabase'', ''hikvision_sync_webhook_url'')'
        when v_url !~ '^https?://[^/]+/webhooks/supabase$'
        then 'the Vault secret hikvision_sync_webhook_url does not end in /webhooks/supabase'
        end, array_to_string(
            regexp_match(v_url, '^(https?://)(?:[^/]*@)?([^/@]+)/webhooks/supabase$'), '');
    if v_secret is null then
        return query select 'webhook_secret', 'the Vault secret hikvision_sync_webhook_secret is '
            'missing: create it with the value that `receiver secret` printed', null::text;
    elsif v_secret !~ '^whsec_[A-Za-z0-9+/]+={0,2}$' then
        return query select 'webhook_secret', 'the Vault secret hikvision_sync_webhook_secret is '
            'not whsec_ and base64: replace it with what `receiver secret` prints', null::text;
    else
        begin
            return query select 'webhook_secret', null::text,
                hikvision_sync.sign(v_secret, 'receiver-check', 0, '{}'::jsonb);
        exception when others then
            return query select 'webhook_secret', 'signing failed: ' || sqlstate, null::text;
        end;
    end if;
    return query select 'triggers', public.hikvision_sync_unheard(true), null::text;
    select count(*) into v_count
        from public.dispozitive_pontaj device where device.status = 'activ';
    return query select 'terminals', case when v_count = 0
        then 'dispozitive_pontaj has no row with status activ' end, v_count::text;
    begin
        return query select 'webhooks', null::text, hikvision_sync.webhook_ends()::text;
    exception when others then  -- pg_net's tables are not ours, and their shape may change
        return query select 'webhooks', null::text, null::text;
    end;
    begin
        return query select 'work', null::text, hikvision_sync.work()::text;
        return query select 'terminal ' || terminal.terminal_id, null::text, terminal.state::text
            from hikvision_sync.terminal_states() terminal;
        return query select 'leaver_policy', hikvision_sync.fault_of_policies(), null::text;
        return query select 'verification ' || terminal.terminal_id, null::text,
                            terminal.state::text
            from hikvision_sync.verifications() terminal;
    exception when others then  -- the ledger is of another version
        return query select 'work', null::text, null::text;
    end;
end $$;

insert into hikvision_sync.files (name, version) values ('0005_check', 2)
    on conflict (name) do update set version = excluded.version;

select hikvision_sync.grant_to_service_role();

notify pgrst, 'reload schema';

commit;
