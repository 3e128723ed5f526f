-- What `receiver check` asks the database. Needs 0001 to 0003. Safe to run twice.

begin;

-- What became of the newest webhooks: at most 40, of the last hour, the newest first.
-- Promise: no request's or answer's content, and nothing of pg_net's other users: a request is ours
-- where `posts` has its id. `ends` is one word for each: accepted, unsigned (401), late (401, by its
-- timestamp), refused (any other answer of the receiver), status (an answer that is not the
-- receiver's), timeout, error, queued, `under way`, lost (neither queued nor answered after a
-- minute). Beside it the newest status of the kinds refused and status, pg_net's newest error, and
-- for how long the oldest has been queued.
create or replace function hikvision_sync.webhook_ends() returns jsonb
language plpgsql stable security definer set search_path = '' as $$
begin
    return (
    with ours as (
        select i.id, p.posted_at from (
            select * from hikvision_sync.posts
            where posted_at > clock_timestamp() - interval '1 hour'
            order by posted_at desc limit 40
        ) p cross join lateral unnest(p.request_ids) as i(id)
        order by p.posted_at desc, i.id desc limit 40
    ), answers as (  -- one that was sent twice has two
        select distinct on (r.id) r.* from net._http_response r
        where r.created > clock_timestamp() - interval '1 hour'
          and r.id in (select o.id from ours o)
        order by r.id, r.created desc
    ), known as (
        select o.id, o.posted_at, r.status_code, r.error_msg, case
            when r.status_code = 202 and r.content like '{"accepted"%' then 'accepted'
            when r.status_code = 401 and r.content_type like 'application/problem+json%'
                then case when r.content like '%over 5 minutes off%' then 'late' else 'unsigned' end
            when r.content_type like 'application/problem+json%' then 'refused'
            when r.status_code is not null then 'status'
            when r.timed_out then 'timeout'
            when r.id is not null then 'error'
            when q.id is not null then 'queued'
            when o.posted_at < clock_timestamp() - interval '1 minute' then 'lost'
            else 'under way' end as ends
        from ours o
        left join answers r on r.id = o.id
        left join net.http_request_queue q on q.id = o.id
    )
    select jsonb_build_object(
        'ends', coalesce(jsonb_agg(k.ends order by k.posted_at desc, k.id desc), '[]'),
        'status', (array_agg(k.status_code order by k.posted_at desc, k.id desc)
                   filter (where k.ends in ('refused', 'status')))[1],
        'error', (array_agg(left(k.error_msg, 200) order by k.posted_at desc, k.id desc)
                  filter (where k.ends = 'error'))[1],
        'queued_s', extract(epoch from clock_timestamp()
                            - min(k.posted_at) filter (where k.ends = 'queued')))
    from known k);
end $$;

-- How the work goes as a whole: how many edits nobody has taken and for how long the oldest of them
-- waits; for how long a pair that could have been claimed was not; how long ago a terminal was looked
-- at that does not rest; and when a receiver was last seen. A check is none: its leases bear its
-- name, `check:…`.
create or replace function hikvision_sync.work() returns jsonb
language sql volatile security definer set search_path = '' as $$
    select jsonb_build_object(
        'edits', (select count(*) from hikvision_sync.edits),
        'edits_s', (select extract(epoch from n.now - min(e.edited_at))
                    from hikvision_sync.edits e),
        'due_s', (
            select extract(epoch from n.now - min(greatest(
                p.next_attempt_at, t.rests_until, t.free_at, t.leased_until, t.changed_at)))
            from hikvision_sync.pairs p
            join public.dispozitive_pontaj d on d.id = p.terminal_id and d.status = 'activ'
            join hikvision_sync.terminals t on t.terminal_id = p.terminal_id
            where p.wanted > p.done),
        'looked_s', (
            select extract(epoch from n.now - min(greatest(
                t.looked_at, t.rests_until, t.free_at, t.leased_until, t.changed_at)))
            from hikvision_sync.terminals t
            join public.dispozitive_pontaj d on d.id = t.terminal_id and d.status = 'activ'
            where t.looked_at is not null),
        'seen_s', extract(epoch from n.now - greatest(
            (select max(p.recorded_at) from hikvision_sync.pairs p),
            (select max(case
                 when t.leased_by not like 'check:%' then least(t.leased_until, n.now)
                 when t.leased_by is null and t.last_held_by not like 'check:%'
                 then least(t.free_at, n.now) end)
             from hikvision_sync.terminals t))))
    from (select clock_timestamp() as now) n
$$;

-- One row per active terminal: who holds it, whether it rests, and how its pairs stand.
-- Promise: a reason names nobody: a person's number is taken out of it.
create or replace function hikvision_sync.terminal_states()
returns table (terminal_id uuid, state jsonb)
language sql volatile security definer set search_path = '' as $$
    select d.id, jsonb_build_object(
        'host', d.ip_address,
        'held_by', t.leased_by,
        'held_s', extract(epoch from n.now - t.leased_at),
        'lease_left_s', extract(epoch from t.leased_until - n.now),
        'rests_s', case when t.rests_until > n.now then extract(epoch from t.rests_until - n.now) end,
        'rest_reason', t.rest_reason,
        'failures', t.failures,
        'wanted', c.wanted, 'wanted_s', c.wanted_s, 'done_lately', c.done_lately,
        'failing', c.failing, 'failing_for', c.failing_for,
        'refused', c.refused, 'refused_for', c.refused_for)
    from (select clock_timestamp() as now) n
    cross join public.dispozitive_pontaj d
    left join hikvision_sync.terminals t on t.terminal_id = d.id
    cross join lateral (
        select count(*) filter (where p.wanted > p.done) as wanted,
               extract(epoch from n.now
                       - min(p.wanted_since) filter (where p.wanted > p.done)) as wanted_s,
               count(*) filter (where p.wanted = p.done
                                  and p.recorded_at > n.now - interval '10 minutes') as done_lately,
               count(*) filter (where p.wanted > p.done and p.attempts >= 3) as failing,
               mode() within group (order by p.said)
                   filter (where p.wanted > p.done and p.attempts >= 3) as failing_for,
               count(*) filter (where p.wanted = p.done and p.status <> 'success') as refused,
               mode() within group (order by p.said)
                   filter (where p.wanted = p.done and p.status <> 'success') as refused_for
        from (
            select p.*, case when p.status <> 'success' then regexp_replace(
                p.message,
                '(?<![0-9.])' || coalesce(p.employee_no, (
                    select max(b.employee_no)::text from public.angajati_biometrie b
                    where b.angajat_id = p.employee_id), 'nobody') || '(?![0-9]|[.][0-9])',
                '…', 'g') end as said
            from hikvision_sync.pairs p where p.terminal_id = d.id
        ) p
    ) c
    where d.status = 'activ'
    order by d.id
$$;

-- Name everything that keeps edits from becoming webhooks, and webhooks from becoming work.
-- Promise: one row per thing checked; fault is null where it is well, otherwise words that say
-- what to do. Returns no secret. The row `webhook_secret` carries in detail a signature over
-- `receiver-check.0.{}`, so that the receiver can tell whether its secret is the Vault's; with
-- its timestamp of 1970 that signature opens nothing. `webhook_url` carries the address without path
-- and login. The rows clock, webhooks, work and `terminal <id>` carry figures, of which the
-- receiver makes words, knowing its own clock and settings; null where they cannot be had.
create or replace function public.hikvision_sync_check()
returns table (name text, fault text, detail text)
language plpgsql security definer set search_path = '' as $$
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
        then 'is of an older version: run sql/0001_tables.sql again, then the others' end, null::text;
    return query select 'pgcrypto', case
        when to_regprocedure('extensions.hmac(bytea,bytea,text)') is null
        then 'pgcrypto is not in the schema extensions: create extension pgcrypto '
             'schema extensions' end, null::text;
    begin
        select s.decrypted_secret into v_url
            from vault.decrypted_secrets s where s.name = 'hikvision_sync_webhook_url';
        select s.decrypted_secret into v_secret
            from vault.decrypted_secrets s where s.name = 'hikvision_sync_webhook_secret';
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
    select count(*) into v_count from pg_catalog.pg_trigger t
        where t.tgname like 'hikvision\_sync\_%' and not t.tgisinternal and t.tgenabled <> 'D'
          and t.tgrelid in (to_regclass('public.angajati'),
                            to_regclass('public.angajati_biometrie'),
                            to_regclass('public.dispozitive_pontaj'));
    return query select 'triggers', case when v_count < 8
        then 'only ' || v_count || ' of 8 triggers are there and enabled: run sql/0003_triggers.sql'
        end, null::text;
    select count(*) into v_count from public.dispozitive_pontaj d where d.status = 'activ';
    return query select 'terminals', case when v_count = 0
        then 'dispozitive_pontaj has no row with status activ' end, v_count::text;
    begin
        return query select 'webhooks', null::text, hikvision_sync.webhook_ends()::text;
    exception when others then  -- pg_net's tables are not ours, and their shape may change
        return query select 'webhooks', null::text, null::text;
    end;
    begin
        return query select 'work', null::text, hikvision_sync.work()::text;
        return query select 'terminal ' || s.terminal_id, null::text, s.state::text
            from hikvision_sync.terminal_states() s;
    exception when others then  -- the ledger is of another version
        return query select 'work', null::text, null::text;
    end;
end $$;

select hikvision_sync.grant_to_service_role();

notify pgrst, 'reload schema';

commit;
