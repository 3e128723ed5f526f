-- What GET /api/hikvision/status and a drift ask the ledger. Needs 0001 and 0002. Safe to run
-- again. These functions only read, and take no lock that a receiver or HR would wait for.

begin;

-- An earlier version of this function returned other columns.
drop function if exists public.hikvision_sync_status();

-- Return one row for each active terminal: whether it works, and how many pairs are in which state.
-- Promise: each pair of an active terminal counts once. It is failed where the last attempt did not
-- end well, otherwise wanted where an edit waits, otherwise in step where the terminal itself has
-- said so, otherwise unknown. confirmed_at is when the terminal had last said so of everybody of
-- whom it ever did: the oldest of their confirmations. verified_at is when it was last asked for
-- everybody whom it holds, and verified is what that found. reachable is null for a
-- terminal that was never asked. The oldest wanted may be an edit that no receiver has claimed yet
-- and that is in no pair, so that a worker that does not work shows too. Its age in seconds is by
-- the clock that dated it, and 0 where nothing waits.
create or replace function public.hikvision_sync_status()
returns table (
    terminal_id uuid, host text, reachable boolean, why_not text, rests_until timestamptz,
    looked_at timestamptz, device jsonb,
    in_step bigint, wanted bigint, failed bigint, oldest_wanted_at timestamptz,
    oldest_wanted_s double precision, rest_kind text,
    unknown bigint, confirmed_at timestamptz, confirmed_s double precision,
    verified_at timestamptz, verified jsonb
) language sql stable security definer set search_path = '' set row_security = off as $$
    with waiting as materialized (   -- one row for all employees' edits, and one for each fill
        select edit.terminal_id, min(edit.edited_at) as edited_at
        from hikvision_sync.edits edit group by edit.terminal_id
    )
    select device.id, to_jsonb(device.*) ->> 'ip_address',
           case when terminal.rest_reason is not null then false
                when terminal.looked_at is not null and terminal.looked_at > '-infinity'
                then true end,
           terminal.rest_reason,
           case when terminal.rests_until > now() then terminal.rests_until end,
           case when terminal.looked_at > '-infinity' then terminal.looked_at end,
           terminal.device,
           coalesce(counted.in_step, 0), coalesce(counted.wanted, 0), coalesce(counted.failed, 0),
           oldest.at,
           greatest(extract(epoch from now() - oldest.at), 0)::double precision,
           case when terminal.rest_reason is not null
                then coalesce(terminal.rest_kind, 'other') end,
           coalesce(counted.unknown, 0), counted.confirmed_at,
           greatest(extract(epoch from now() - counted.confirmed_at), 0)::double precision,
           terminal.verified_at, terminal.verified
    from public.dispozitive_pontaj device
    left join hikvision_sync.terminals terminal on terminal.terminal_id = device.id
    left join (
        select pair.terminal_id,
               count(*) filter (where pair.wanted = pair.done and pair.status = 'success'
                                  and pair.confirmed_at is not null) as in_step,
               count(*) filter (where pair.wanted = pair.done and pair.status = 'success'
                                  and pair.confirmed_at is null) as unknown,
               min(pair.confirmed_at) as confirmed_at,
               count(*) filter (where pair.wanted > pair.done
                                  and coalesce(pair.status, 'success') = 'success') as wanted,
               count(*) filter (where pair.status <> 'success') as failed,
               min(pair.wanted_since) filter (where pair.wanted > pair.done) as oldest_wanted_at
        from hikvision_sync.pairs pair
        group by pair.terminal_id
    ) counted on counted.terminal_id = device.id
    cross join lateral (
        select least(counted.oldest_wanted_at,
                     (select min(waiting.edited_at) from waiting
                      where waiting.terminal_id is null or waiting.terminal_id = device.id)) as at
    ) oldest
    where device.status = 'activ'
    order by device.id
$$;

-- Return a page of the failed pairs of active terminals, in the order (terminal, employee).
-- p_terminal_id and p_employee_id are the last pair of the page before, null for the first page.
-- next_attempt_at is null where no attempt comes until HR edits.
create or replace function public.hikvision_sync_failed(
    p_terminal_id uuid, p_employee_id uuid, p_limit integer
) returns table (
    terminal_id uuid, employee_id uuid, status text, step text, message text,
    since timestamptz, last_attempt_at timestamptz, next_attempt_at timestamptz
) language sql stable security definer set search_path = '' set row_security = off as $$
    select pair.terminal_id, pair.employee_id, pair.status, pair.step, pair.message,
           case when pair.wanted > pair.done then pair.wanted_since else pair.recorded_at end,
           pair.recorded_at,
           case when pair.wanted > pair.done
                then greatest(pair.next_attempt_at, terminal.rests_until) end
    from hikvision_sync.pairs pair
    join public.dispozitive_pontaj device
        on device.id = pair.terminal_id and device.status = 'activ'
    left join hikvision_sync.terminals terminal on terminal.terminal_id = pair.terminal_id
    where pair.status <> 'success'
      and (p_terminal_id is null
           or (pair.terminal_id, pair.employee_id) > (p_terminal_id, p_employee_id))
    order by pair.terminal_id, pair.employee_id
    limit least(p_limit, 1000)
$$;

-- Return a page of the numbers under which a terminal holds people, as far as the ledger knows.
-- p_employee_id is the last employee of the page before, null for the first page. wanted: an edit
-- of that employee has still to be brought there.
create or replace function public.hikvision_sync_held(
    p_terminal_id uuid, p_employee_id uuid, p_limit integer
) returns table (employee_id uuid, employee_no text, wanted boolean)
language sql stable security definer set search_path = '' as $$
    select pair.employee_id, pair.employee_no, pair.wanted > pair.done
    from hikvision_sync.pairs pair
    where pair.terminal_id = p_terminal_id
      and (p_employee_id is null or pair.employee_id > p_employee_id)
    order by pair.employee_id
    limit least(p_limit, 1000)
$$;

insert into hikvision_sync.files (name, version) values ('0004_status', 2)
    on conflict (name) do update set version = excluded.version;

select hikvision_sync.grant_to_service_role();

notify pgrst, 'reload schema';

commit;
