-- What GET /api/hikvision/status and a drift ask the ledger. Needs 0001 and 0002. Safe to run twice.
--
-- Reads only, and takes no lock that a receiver or HR would wait for.

begin;

-- It answers in another shape than in an earlier version of this file.
drop function if exists public.hikvision_sync_status();

-- One row per active terminal: whether it can be worked with, and how many pairs are in which state.
-- Promise: each pair of an active terminal counts once: failed where the last attempt did not end
-- well, else wanted where an edit waits, else in step. reachable is null where nobody asked it yet.
-- The oldest wanted may be an edit that nobody has claimed yet, and that is in no pair: so a worker
-- that does not work shows too. Its age is by the clock that dated it, and 0 where none waits.
create or replace function public.hikvision_sync_status()
returns table (
    terminal_id uuid, host text, reachable boolean, why_not text, rests_until timestamptz,
    looked_at timestamptz, device jsonb,
    in_step bigint, wanted bigint, failed bigint, oldest_wanted_at timestamptz,
    oldest_wanted_s double precision, rest_kind text
) language sql stable security definer set search_path = '' as $$
    select d.id, d.ip_address,
           case when t.rest_reason is not null then false
                when t.looked_at is not null and t.looked_at > '-infinity' then true end,
           t.rest_reason,
           case when t.rests_until > now() then t.rests_until end,
           case when t.looked_at > '-infinity' then t.looked_at end,
           t.device,
           coalesce(c.in_step, 0), coalesce(c.wanted, 0), coalesce(c.failed, 0), o.at,
           greatest(extract(epoch from now() - o.at), 0)::double precision,
           case when t.rest_reason is not null then coalesce(t.rest_kind, 'other') end
    from public.dispozitive_pontaj d
    left join hikvision_sync.terminals t on t.terminal_id = d.id
    left join (
        select p.terminal_id,
               count(*) filter (where p.wanted = p.done and p.status = 'success') as in_step,
               count(*) filter (where p.wanted > p.done
                                  and coalesce(p.status, 'success') = 'success') as wanted,
               count(*) filter (where p.status <> 'success') as failed,
               min(p.wanted_since) filter (where p.wanted > p.done) as oldest_wanted_at
        from hikvision_sync.pairs p
        group by p.terminal_id
    ) c on c.terminal_id = d.id
    cross join lateral (
        select least(
            c.oldest_wanted_at,
            (select min(e.edited_at) from hikvision_sync.edits e where e.employee_id is not null),
            (select min(e.edited_at) from hikvision_sync.edits e where e.terminal_id = d.id)
        ) as at
    ) o
    where d.status = 'activ'
    order by d.id
$$;

-- Failed pairs of active terminals after (p_terminal_id, p_employee_id) in that order, a page at a
-- time; from the first with nulls. next_attempt_at is null where none comes until HR edits.
create or replace function public.hikvision_sync_failed(
    p_terminal_id uuid, p_employee_id uuid, p_limit integer
) returns table (
    terminal_id uuid, employee_id uuid, status text, step text, message text,
    since timestamptz, last_attempt_at timestamptz, next_attempt_at timestamptz
) language sql stable security definer set search_path = '' as $$
    select p.terminal_id, p.employee_id, p.status, p.step, p.message,
           case when p.wanted > p.done then p.wanted_since else p.recorded_at end,
           p.recorded_at,
           case when p.wanted > p.done then greatest(p.next_attempt_at, t.rests_until) end
    from hikvision_sync.pairs p
    join public.dispozitive_pontaj d on d.id = p.terminal_id and d.status = 'activ'
    left join hikvision_sync.terminals t on t.terminal_id = p.terminal_id
    where p.status <> 'success'
      and (p_terminal_id is null or (p.terminal_id, p.employee_id) > (p_terminal_id, p_employee_id))
    order by p.terminal_id, p.employee_id
    limit least(p_limit, 1000)
$$;

-- Under which numbers a terminal holds people, as far as the ledger knows; a page at a time, after
-- p_employee_id. wanted: an edit of that employee is still to be brought there.
create or replace function public.hikvision_sync_held(
    p_terminal_id uuid, p_employee_id uuid, p_limit integer
) returns table (employee_id uuid, employee_no text, wanted boolean)
language sql stable security definer set search_path = '' as $$
    select p.employee_id, p.employee_no, p.wanted > p.done
    from hikvision_sync.pairs p
    where p.terminal_id = p_terminal_id
      and (p_employee_id is null or p.employee_id > p_employee_id)
    order by p.employee_id
    limit least(p_limit, 1000)
$$;

select hikvision_sync.grant_to_service_role();

notify pgrst, 'reload schema';

commit;
