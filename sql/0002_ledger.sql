-- The functions of the ledger: the receiver claims pairs, records what became of them, and leases
-- terminals. Needs 0001; `record` uses 0007 besides. Safe to run again; no save of HR waits for it.

begin;

-- Note that rows of HR's terminals were changed: the reason for a rest may be gone, and other
-- hardware may stand at another address.
create or replace function hikvision_sync.terminals_changed(p_terminal_ids uuid[])
returns void language sql security definer set search_path = '' as $$
    update hikvision_sync.terminals terminal set
        changed_at = clock_timestamp(), failures = 0, looked_at = '-infinity',
        rests_until = null, rest_reason = null, login_refused = false
    where terminal.terminal_id = any (p_terminal_ids)
$$;

-- Turn waiting edits into wanted pairs. claim and due call this.
-- An employee's edit makes one pair with each active terminal, and one with each inactive terminal
-- that may hold the person; the latter waits until the terminal is active. A terminal's fill makes
-- one pair with each active employee, and one with each other employee who has a number, because
-- the people on that terminal are unknown.
-- Promise: an edit is deleted in the same transaction that makes its pairs wanted. Two receivers
-- that do this at once take different edits, and write pairs in one statement in one order: they
-- may wait for each other's short transactions, but never deadlock. The size is bounded, so that a
-- call stays far below PostgREST's statement timeout (8 s).
create or replace function hikvision_sync.spread_edits()
returns void language plpgsql security definer set search_path = '' set row_security = off as $$
declare
    v_terminals integer;
    v_persons integer;
    v_employee_ids uuid[];
    v_terminal_ids uuid[];
    v_edited_at timestamptz[];
    v_changed_ids uuid[];
begin
    if not exists (select from hikvision_sync.edits) then
        return;
    end if;
    select count(*) into v_terminals
        from public.dispozitive_pontaj device where device.status = 'activ';
    select count(*) into v_persons from public.angajati employee;
    with taken as (
        delete from hikvision_sync.edits edit
        where edit.id in (
            select waiting.id from hikvision_sync.edits waiting
            where waiting.employee_id is not null order by waiting.id
            limit greatest(1, 20000 / greatest(1, v_terminals))
            for update skip locked
        )
        returning edit.*
    ), fills as (
        delete from hikvision_sync.edits edit
        where edit.id in (
            select waiting.id from hikvision_sync.edits waiting
            where waiting.employee_id is null order by waiting.id
            limit greatest(1, 20000 / greatest(1, v_persons))
            for update skip locked
        )
        returning edit.*
    )
    select array_agg(edit.employee_id), array_agg(edit.terminal_id), array_agg(edit.edited_at),
           array_agg(edit.terminal_id) filter (where edit.changed)
        into v_employee_ids, v_terminal_ids, v_edited_at, v_changed_ids
        from (select * from taken union all select * from fills) edit;
    if v_edited_at is null then
        return;
    end if;
    delete from hikvision_sync.posts post where post.ctid in (
        select forgotten.ctid from hikvision_sync.posts forgotten
        where forgotten.posted_at < clock_timestamp() - interval '6 hours'
        for update skip locked);
    with made as (
        insert into hikvision_sync.terminals (terminal_id)
            select device.id from public.dispozitive_pontaj device
            where device.status = 'activ' order by device.id
            on conflict do nothing
            returning terminal_id
    )
    -- A change of no terminal that there is could be any: one that is new is filled.
    insert into hikvision_sync.edits (terminal_id)
        select made.terminal_id from made
        where exists (select from unnest(v_changed_ids) as changed(id)
                      where changed.id not in (select device.id
                                               from public.dispozitive_pontaj device))
          and made.terminal_id <> all (array_remove(v_terminal_ids, null))
          and not exists (select from hikvision_sync.edits waiting
                          where waiting.terminal_id = made.terminal_id);
    if v_changed_ids is not null then
        perform hikvision_sync.terminals_changed(v_changed_ids);
    end if;
    with edited as (
        select edit.employee_id, edit.terminal_id, min(edit.edited_at) as edited_at
        from unnest(v_employee_ids, v_terminal_ids, v_edited_at)
             as edit(employee_id, terminal_id, edited_at)
        group by edit.employee_id, edit.terminal_id
    )
    -- meet and take set wanted and wanted_since in the same way. A function for that cannot be
    -- inlined, because it sets its search_path; this statement would take a fifth longer.
    insert into hikvision_sync.pairs as pair (terminal_id, employee_id, wanted_since, leaves)
        select spread.terminal_id, spread.employee_id, min(spread.edited_at),
               bool_and(known.employee_no is not null and passing.id is null)
        from (
            select device.id as terminal_id, edited.employee_id, edited.edited_at
            from edited
            cross join public.dispozitive_pontaj device
            where edited.employee_id is not null
              and (device.status = 'activ'
                   or exists (select from hikvision_sync.pairs known
                              where known.terminal_id = device.id
                                and known.employee_id = edited.employee_id))
            union all
            select device.id, employee.id, edited.edited_at
            from edited
            join public.dispozitive_pontaj device on device.id = edited.terminal_id
            cross join public.angajati employee
            where edited.employee_id is null
              and (employee.status = 'activ'
                   or exists (select from public.angajati_biometrie biometrics
                              where biometrics.angajat_id = employee.id
                                and btrim(biometrics.employee_no::text) <> ''))
        ) spread
        left join hikvision_sync.pairs known
            on known.terminal_id = spread.terminal_id and known.employee_id = spread.employee_id
        left join (
            select employee.id
            from public.angajati employee
            join public.angajati_biometrie biometrics on biometrics.angajat_id = employee.id
            where employee.status = 'activ' and btrim(biometrics.employee_no::text) <> ''
        ) passing on passing.id = spread.employee_id
        group by spread.terminal_id, spread.employee_id
        order by spread.terminal_id, spread.employee_id
        on conflict (terminal_id, employee_id) do update set
            wanted = pair.wanted + 1,
            wanted_since = case when pair.wanted > pair.done then pair.wanted_since
                                else excluded.wanted_since end,
            leaves = excluded.leaves,
            attempts = 0,
            next_attempt_at = clock_timestamp();
end $$;

-- Give a free terminal's lease to p_receiver: free -> leased. The caller has locked its row.
create or replace function hikvision_sync.take_lease(
    p_terminal_id uuid, p_receiver text, p_now timestamptz, p_lease_seconds double precision
) returns hikvision_sync.terminals language sql security definer set search_path = '' as $$
    update hikvision_sync.terminals terminal set
        fence = terminal.fence + 1,
        leased_by = p_receiver,
        leased_at = p_now,
        leased_until = p_now + make_interval(secs => least(p_lease_seconds, 600))
    where terminal.terminal_id = p_terminal_id
    returning terminal.*
$$;

-- Say whether a terminal has to be asked which hardware it is: it never was, or not for
-- p_look_seconds, or something went wrong since, and other hardware may stand there now.
-- The parameter keeps the name t: another would need a drop, which a claim in flight could meet, and
-- an earlier version's files could not be applied again.
create or replace function hikvision_sync.look_due(
    t hikvision_sync.terminals, p_now timestamptz, p_look_seconds double precision
) returns boolean language sql immutable set search_path = '' as $$
    select t.looked_at is null or t.failures > 0
        or t.looked_at < p_now - make_interval(secs => p_look_seconds)
$$;

-- Say under which name the memory of numbers knows the hardware behind a row.
create or replace function hikvision_sync.hardware(p_terminal hikvision_sync.terminals)
returns text language sql immutable set search_path = '' as $$
    select coalesce(nullif(p_terminal.device ->> 'serial', ''), p_terminal.terminal_id::text)
$$;

-- Return the numbers but p_employee_no under which a piece of hardware may still hold a person.
create or replace function hikvision_sync.other_numbers(
    p_hardware text, p_employee_id uuid, p_employee_no text
) returns text[] language sql stable set search_path = '' as $$
    select coalesce(array_agg(number.employee_no order by number.employee_no), '{}')
    from hikvision_sync.numbers number
    where number.hardware = p_hardware and number.employee_id = p_employee_id and number.there
      and number.employee_no is distinct from p_employee_no
$$;

-- Return what is known of the photo under a pair's number on a piece of hardware. `anothers`: the
-- number was another person's there, and the face may be too, until the pair's own is recorded.
create or replace function hikvision_sync.known_photo(
    p_hardware text, p_employee_id uuid, p_employee_no text, p_photo text
) returns text language sql stable set search_path = '' as $$
    select case when exists (
        select from hikvision_sync.numbers number
        where number.hardware = p_hardware and number.employee_no = p_employee_no
          and (number.anothers or number.employee_id <> p_employee_id))
        then 'anothers' else p_photo end
$$;

-- Return who may pass now: the active employees with a number.
create or replace function hikvision_sync.passing()
returns table (employee_id uuid, employee_no text)
language sql stable security definer set search_path = '' set row_security = off as $$
    select employee.id, btrim(biometrics.employee_no::text)
    from public.angajati employee
    join public.angajati_biometrie biometrics on biometrics.angajat_id = employee.id
    where employee.status = 'activ' and btrim(biometrics.employee_no::text) <> ''
$$;

-- Note that a receiver is at work, and its policy for leavers.
-- Promise: where the policy is another than that of the receiver that began before it, everybody is
-- wanted who left and whom a terminal may still hold. Two receivers with different policies do so
-- once each, when they begin.
create or replace function hikvision_sync.see_receiver(p_receiver text, p_policy text)
returns void language plpgsql security definer set search_path = '' as $$
declare
    v_now timestamptz := clock_timestamp();
    v_policy_before text;
begin
    if exists (select from hikvision_sync.receivers receiver
               where receiver.receiver = p_receiver and receiver.policy = p_policy
                 and receiver.seen_at > v_now - interval '10 seconds') then
        return;
    end if;
    perform hikvision_sync.remember_columns(false);
    update hikvision_sync.receivers receiver set seen_at = v_now
        where receiver.receiver = p_receiver and receiver.policy = p_policy;
    if found then
        return;
    end if;
    select receiver.policy into v_policy_before
        from hikvision_sync.receivers receiver
        order by receiver.policy = p_policy, receiver.began_at desc limit 1;
    insert into hikvision_sync.receivers (receiver, policy) values (p_receiver, p_policy)
        on conflict (receiver) do update
        set policy = excluded.policy, began_at = excluded.began_at, seen_at = excluded.seen_at;
    delete from hikvision_sync.receivers receiver
        where receiver.seen_at < v_now - interval '1 day' and receiver.receiver <> p_receiver;
    if v_policy_before is distinct from p_policy then
        insert into hikvision_sync.edits (employee_id)
            select distinct pair.employee_id from hikvision_sync.pairs pair
            where pair.employee_no is not null
              and pair.employee_id not in (select passing.employee_id
                                           from hikvision_sync.passing() passing);
    end if;
end $$;

-- Say whether a terminal has to be asked for everybody: that has begun, or it is time again.
-- Terminals that were installed together are asked at different times: each has its own part, from
-- three quarters to the whole, of p_verify_seconds. null: never.
create or replace function hikvision_sync.verify_due(
    p_terminal hikvision_sync.terminals, p_now timestamptz, p_verify_seconds double precision
) returns boolean language sql immutable set search_path = '' as $$
    select p_verify_seconds is not null
       and (p_terminal.verification is not null or p_terminal.verify_began_at is null
            or p_terminal.verify_began_at < p_now - make_interval(secs => p_verify_seconds
                * (0.75 + (hashtext(p_terminal.terminal_id::text) & 255) / 1024.0)))
$$;

-- Earlier versions of these functions took other arguments, or returned other columns. A function
-- whose columns change gets other arguments too: so an earlier version's files can be applied again.
drop function if exists public.hikvision_sync_claim(text, double precision, integer);
drop function if exists public.hikvision_sync_lease(text, uuid, double precision);
drop function if exists public.hikvision_sync_claim(
    text, double precision, integer, double precision);
drop function if exists public.hikvision_sync_due(uuid, bigint, integer);
drop function if exists public.hikvision_sync_take(uuid, bigint, uuid);
drop function if exists public.hikvision_sync_record(
    uuid, bigint, double precision, uuid, bigint, text, text, text, text, text, double precision);
drop function if exists public.hikvision_sync_record(
    uuid, bigint, double precision, uuid, bigint, text, text, text, text, text, double precision,
    boolean);
drop function if exists public.hikvision_sync_intend(uuid, bigint, double precision, uuid, text);
drop function if exists public.hikvision_sync_release(
    uuid, bigint, double precision, integer, double precision, text);
drop function if exists public.hikvision_sync_release(
    uuid, bigint, double precision, integer, double precision, text, boolean);

-- Return up to p_limit due pairs of a terminal: leavers first or alone, then those that failed the
-- fewest times, then those that wait longest.
-- Promise: it is fast however many wait there and however few of them are due, whatever the planner
-- believes: it cannot know that. A few are all found by pairs_due and then sorted; of many, the
-- first are soon met in the order of pairs_turn.
create or replace function hikvision_sync.due_pairs(
    p_terminal_id uuid, p_leavers_alone boolean, p_now timestamptz, p_limit integer
) returns setof hikvision_sync.pairs
language plpgsql stable security definer set search_path = '' as $$
declare
    v_few boolean;
begin
    select count(*) < 500 into v_few from (
        select from hikvision_sync.pairs pair
        where pair.terminal_id = p_terminal_id and pair.wanted > pair.done
          and pair.leaves in (true, p_leavers_alone) and pair.next_attempt_at <= p_now
        limit 500) due;
    if v_few then
        return query
            select pair.* from (
                select pair.* from hikvision_sync.pairs pair
                where pair.terminal_id = p_terminal_id and pair.wanted > pair.done
                  and pair.leaves in (true, p_leavers_alone) and pair.next_attempt_at <= p_now
                offset 0) pair   -- found before they are sorted
            order by pair.leaves desc, pair.attempts, pair.wanted_since, pair.employee_id
            limit least(p_limit, 1000);
    else
        return query
            select pair.* from hikvision_sync.pairs pair
            where pair.terminal_id = p_terminal_id and pair.wanted > pair.done
              and (pair.leaves or not p_leavers_alone)
              and pair.next_attempt_at + interval '0' <= p_now   -- which pairs_due cannot answer
            order by pair.leaves desc, pair.attempts, pair.wanted_since, pair.employee_id
            limit least(p_limit, 1000);
    end if;
end $$;

-- Lease one terminal that has due pairs, and return up to p_limit of them. Where only a look at the
-- hardware or a verification is due, lease that terminal and return a single row without an
-- employee; `verification` says how far that has come, and is null where none is due now.
-- Promise: no two callers get the same terminal (for update skip locked). Terminals take turns:
-- the one that waited longest comes first. No row means that nothing is due. People who may not
-- pass any more do not wait behind an import that takes hours: a terminal that holds such leavers
-- comes before all others, and then only its leavers are returned. A verification waits for all
-- other work. Pairs are read without a lock: the lease is the lock.
-- `others` are numbers but employee_no under which the terminal may hold the person too.
create or replace function public.hikvision_sync_claim(
    p_receiver text, p_lease_seconds double precision, p_limit integer,
    p_look_seconds double precision, p_verify_seconds double precision, p_policy text
) returns table (
    terminal_id uuid, fence bigint, failures integer, device jsonb, look boolean,
    verification jsonb,
    employee_id uuid, version bigint, attempts integer, employee_no text, photo text,
    others text[], in_doubt boolean
) language plpgsql security definer set search_path = '' set row_security = off as $$
#variable_conflict use_column
declare
    v_now timestamptz;
    v_terminal_id uuid;
    v_terminal hikvision_sync.terminals;
    v_leavers boolean;
    v_verification jsonb;
begin
    if p_policy is not null then
        perform hikvision_sync.see_receiver(p_receiver, p_policy);
    end if;
    perform hikvision_sync.spread_edits();
    v_now := clock_timestamp();
    select terminal.terminal_id, due.leavers into v_terminal_id, v_leavers
    from hikvision_sync.terminals terminal
    join public.dispozitive_pontaj device
        on device.id = terminal.terminal_id and device.status = 'activ'
    cross join lateral (   -- the first entries of pairs_due, however many pairs wait
        select coalesce(
            (select pair.next_attempt_at from hikvision_sync.pairs pair
             where pair.terminal_id = terminal.terminal_id and pair.wanted > pair.done
               and pair.leaves order by pair.next_attempt_at limit 1) <= v_now, false) as leavers,
            coalesce(
            (select pair.next_attempt_at from hikvision_sync.pairs pair
             where pair.terminal_id = terminal.terminal_id and pair.wanted > pair.done
               and not pair.leaves order by pair.next_attempt_at limit 1) <= v_now, false)
            or coalesce(terminal.looked_at < v_now - make_interval(secs => p_look_seconds), false)
            as others
        offset 0   -- asked once for each terminal
    ) due
    where (terminal.leased_by is null or terminal.leased_until < v_now)
      and (terminal.free_at <= v_now or terminal.last_held_by = p_receiver)
      and (terminal.rests_until is null or terminal.rests_until <= v_now)
      and (due.leavers or due.others
           or hikvision_sync.verify_due(terminal, v_now, p_verify_seconds))
    order by due.leavers desc, due.leavers or due.others desc,
             terminal.leased_at nulls first, terminal.terminal_id
    limit 1
    for update of terminal skip locked;
    if not found then
        return;
    end if;
    v_terminal := hikvision_sync.take_lease(v_terminal_id, p_receiver, v_now, p_lease_seconds);
    if hikvision_sync.verify_due(v_terminal, v_now, p_verify_seconds) then
        v_verification := coalesce(v_terminal.verification, '{}');
    end if;
    return query
        select v_terminal.terminal_id, v_terminal.fence, v_terminal.failures, v_terminal.device,
               hikvision_sync.look_due(v_terminal, v_now, p_look_seconds),
               case when due.employee_id is null then v_verification end,
               due.employee_id, due.wanted, due.attempts, due.employee_no,
               hikvision_sync.known_photo(
                   hikvision_sync.hardware(v_terminal), due.employee_id, due.employee_no,
                   due.photo),
               hikvision_sync.other_numbers(
                   hikvision_sync.hardware(v_terminal), due.employee_id, due.employee_no),
               due.in_doubt
        from (select) one left join lateral hikvision_sync.due_pairs(
            v_terminal.terminal_id, v_leavers, v_now, p_limit) due on true;
end $$;

-- Lease one named terminal, for a look at its hardware or a button's push.
-- Promise: state is `leased`, with the fence to show later; or `busy`, because another receiver
-- holds it or the pause after its last call is not over; or `resting`, because it refused the login
-- and trying again would lock the account (rest_reason says it in words). Only `leased` leases
-- anything. A terminal that rests for another reason is leased: a person wants to know now.
create or replace function public.hikvision_sync_lease(
    p_receiver text, p_terminal_id uuid, p_lease_seconds double precision,
    p_look_seconds double precision default 900
) returns table (
    state text, fence bigint, failures integer, rest_reason text, device jsonb, look boolean
) language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
    v_now timestamptz;
    v_terminal hikvision_sync.terminals;
begin
    insert into hikvision_sync.terminals (terminal_id) values (p_terminal_id)
        on conflict do nothing;
    v_now := clock_timestamp();
    select terminal.* into v_terminal from hikvision_sync.terminals terminal
        where terminal.terminal_id = p_terminal_id for update;
    if v_terminal.login_refused and v_terminal.rests_until > v_now then
        return query select 'resting', null::bigint, v_terminal.failures, v_terminal.rest_reason,
                            null::jsonb, false;
    elsif (v_terminal.free_at > v_now and v_terminal.last_held_by is distinct from p_receiver)
          or (v_terminal.leased_by is not null and v_terminal.leased_until >= v_now) then
        return query select 'busy', null::bigint, v_terminal.failures, null::text,
                            null::jsonb, false;
    else
        v_terminal := hikvision_sync.take_lease(
            p_terminal_id, p_receiver, v_now, p_lease_seconds);
        return query select 'leased', v_terminal.fence, v_terminal.failures, null::text,
            v_terminal.device, hikvision_sync.look_due(v_terminal, v_now, p_look_seconds);
    end if;
end $$;

-- Lengthen a lease to at least p_lease_seconds from now.
-- Promise: held = false means that another receiver may be at the terminal: make no further call.
create or replace function public.hikvision_sync_renew(
    p_terminal_id uuid, p_fence bigint, p_lease_seconds double precision
) returns table (held boolean) language plpgsql security definer set search_path = '' as $$
begin
    update hikvision_sync.terminals terminal set
        leased_until = greatest(terminal.leased_until, clock_timestamp()
                                + make_interval(secs => least(p_lease_seconds, 600)))
    where terminal.terminal_id = p_terminal_id and terminal.fence = p_fence
      and terminal.leased_by is not null;
    return query select found;
end $$;

-- Remember the device behind a leased terminal: its hardware, its firmware and what it can do.
-- p_device is a jsonb object; its `serial` tells one piece of hardware from another.
-- Promise: replaced = true means that another device stands there now. The terminal's pairs begin
-- again: the people on it are unknown, so everybody is wanted there, also those who may not pass.
-- Whoever was ever put on hardware that was not known to stand there is wanted too, also people of
-- whom HR has no row any more. Safe to repeat: under the same lease it answers replaced = true
-- again.
create or replace function public.hikvision_sync_meet(
    p_terminal_id uuid, p_fence bigint, p_lease_seconds double precision, p_device jsonb
) returns table (held boolean, replaced boolean)
language plpgsql security definer set search_path = '' as $$
declare
    v_held boolean;
    v_replaced boolean;
    v_replaced_before boolean;
    v_terminal hikvision_sync.terminals;
    v_hardware_before text;
    v_hardware text;
    v_now timestamptz;
begin
    select renewed.held into v_held
        from public.hikvision_sync_renew(p_terminal_id, p_fence, p_lease_seconds) renewed;
    if v_held then
        v_now := clock_timestamp();
        select terminal.* into v_terminal
            from hikvision_sync.terminals terminal where terminal.terminal_id = p_terminal_id;
        v_hardware_before := hikvision_sync.hardware(v_terminal);
        v_replaced := nullif(v_terminal.device ->> 'serial', '') <> nullif(p_device ->> 'serial', '');
        v_replaced_before := v_terminal.replaced_at_fence = p_fence;
        update hikvision_sync.terminals terminal set
            device = p_device,
            -- Its row was changed since it was leased: this may still be the old address's device.
            looked_at = case when terminal.changed_at >= terminal.leased_at
                             then terminal.looked_at else v_now end,
            replaced_at_fence = case when v_replaced then p_fence
                                     else terminal.replaced_at_fence end,
            -- Other people are there: it is asked for all of them, from the beginning.
            verification = case when v_replaced then null else terminal.verification end,
            verify_began_at = case when v_replaced then null else terminal.verify_began_at end
        where terminal.terminal_id = p_terminal_id
        returning terminal.* into v_terminal;
        v_hardware := hikvision_sync.hardware(v_terminal);
        if v_replaced then
            update hikvision_sync.pairs pair set
                wanted = pair.wanted + 1,
                wanted_since = case when pair.wanted > pair.done then pair.wanted_since
                                    else v_now end,
                attempts = 0,
                next_attempt_at = v_now,
                in_doubt = true,
                photo = case when pair.employee_no is not null then 'unknown' end
            from (select pair.employee_id from hikvision_sync.pairs pair
                  where pair.terminal_id = p_terminal_id
                  order by pair.employee_id for update) locked  -- in claim's order: no deadlock
            where pair.terminal_id = p_terminal_id and pair.employee_id = locked.employee_id;
            insert into hikvision_sync.edits (terminal_id) values (p_terminal_id);
        end if;
        if v_hardware <> v_hardware_before and hikvision_sync.remember_people(
                p_terminal_id, v_hardware_before, v_hardware, v_now) then
            v_replaced := true;
            update hikvision_sync.terminals terminal set replaced_at_fence = p_fence
                where terminal.terminal_id = p_terminal_id;
        end if;
    end if;
    return query select v_held, coalesce(v_replaced, false) or coalesce(v_replaced_before, false);
end $$;

-- Want on a terminal whoever was ever put on the hardware that is found to stand there, and say
-- whether there is anybody. A number that somebody else has by now is theirs once it is put there
-- for them, which comes after whoever left.
create or replace function hikvision_sync.remember_people(
    p_terminal_id uuid, p_hardware_before text, p_hardware text, p_now timestamptz
) returns boolean language plpgsql security definer set search_path = '' as $$
begin
    -- It had not said its serial: what was put on it since is on this hardware.
    insert into hikvision_sync.numbers as number
            (hardware, employee_no, employee_id, there, anothers)
        select p_hardware, nameless.employee_no, nameless.employee_id, nameless.there,
               nameless.anothers
        from hikvision_sync.numbers nameless
        where nameless.hardware = p_hardware_before and p_hardware_before = p_terminal_id::text
        on conflict (hardware, employee_no) do update
        set employee_id = excluded.employee_id, there = excluded.there,
            anothers = excluded.anothers or number.employee_id <> excluded.employee_id;
    delete from hikvision_sync.numbers number
        where number.hardware = p_hardware_before and p_hardware_before = p_terminal_id::text;
    update hikvision_sync.numbers number set there = true where number.hardware = p_hardware;
    insert into hikvision_sync.pairs as pair
            (terminal_id, employee_id, wanted_since, leaves, in_doubt, employee_no, photo)
        select p_terminal_id, number.employee_id, p_now, bool_and(passing.employee_id is null),
               true, min(number.employee_no), 'unknown'
        from hikvision_sync.numbers number
        left join hikvision_sync.passing() passing on passing.employee_id = number.employee_id
        where number.hardware = p_hardware and number.there
        group by number.employee_id
        order by number.employee_id
        on conflict (terminal_id, employee_id) do update set
            wanted = pair.wanted + 1,
            wanted_since = case when pair.wanted > pair.done then pair.wanted_since
                                else excluded.wanted_since end,
            leaves = excluded.leaves,
            in_doubt = true,
            attempts = 0,
            next_attempt_at = p_now,
            employee_no = coalesce(pair.employee_no, excluded.employee_no),
            photo = case when pair.employee_no is null then 'unknown' else pair.photo end;
    return found;
end $$;

-- Lock the pairs of some employees with a terminal, and those of the people who have their numbers.
-- Promise: it locks in the order in which spread_edits does, so that neither waits for the other.
create or replace function hikvision_sync.lock_numbers(
    p_terminal_id uuid, p_employee_ids uuid[], p_employee_nos text[]
) returns void language plpgsql security definer set search_path = '' as $$
begin
    perform from hikvision_sync.pairs pair
    where pair.terminal_id = p_terminal_id
      and (pair.employee_id = any (p_employee_ids) or pair.employee_no = any (p_employee_nos))
    order by pair.employee_id
    for update;
end $$;
drop function if exists hikvision_sync.lock_number(uuid, uuid, text);  -- an earlier version's

-- Note that a terminal may hold an employee under a number, on whatever hardware stands there.
-- A number belongs to one person: another person who had it there has it no longer.
create or replace function hikvision_sync.give_number(
    p_terminal_id uuid, p_employee_id uuid, p_employee_no text
) returns void language plpgsql security definer set search_path = '' as $$
begin
    update hikvision_sync.pairs pair set employee_no = null, photo = null
    where pair.terminal_id = p_terminal_id and pair.employee_no = p_employee_no
      and pair.employee_id <> p_employee_id;
    insert into hikvision_sync.numbers as number (hardware, employee_no, employee_id)
        select hikvision_sync.hardware(terminal), p_employee_no, p_employee_id
        from hikvision_sync.terminals terminal where terminal.terminal_id = p_terminal_id
        on conflict (hardware, employee_no) do update
        set employee_id = excluded.employee_id, there = true,
            anothers = number.anothers or number.employee_id <> excluded.employee_id
        where number.employee_id <> excluded.employee_id or not number.there;
end $$;

-- Return up to p_limit due pairs of a terminal that the caller has leased already, but those of the
-- employees in p_besides.
-- Promise: a button's long run also serves what HR edits meanwhile, at its next visit to the
-- terminal. No row where the lease is lost.
create or replace function public.hikvision_sync_due(
    p_terminal_id uuid, p_fence bigint, p_limit integer, p_besides uuid[]
) returns table (
    employee_id uuid, version bigint, attempts integer, employee_no text, photo text,
    others text[], in_doubt boolean
) language plpgsql security definer set search_path = '' set row_security = off as $$
#variable_conflict use_column
begin
    perform hikvision_sync.spread_edits();
    return query
        select due.employee_id, due.wanted, due.attempts, due.employee_no,
               hikvision_sync.known_photo(
                   hikvision_sync.hardware(terminal), due.employee_id, due.employee_no, due.photo),
               hikvision_sync.other_numbers(
                   hikvision_sync.hardware(terminal), due.employee_id, due.employee_no),
               due.in_doubt
        from hikvision_sync.terminals terminal
        cross join lateral hikvision_sync.due_pairs(
            terminal.terminal_id, false, clock_timestamp(),
            p_limit + cardinality(p_besides)) due
        where terminal.terminal_id = p_terminal_id and terminal.fence = p_fence
          and terminal.leased_by is not null and not due.employee_id = any (p_besides)
        order by due.leaves desc, due.attempts, due.wanted_since, due.employee_id
        limit p_limit;
end $$;

-- Return the pairs of some employees with a leased terminal as they are; no row for a pair that was
-- never wanted. was_wanted: it is wanted. No row at all where the lease is lost.
create or replace function public.hikvision_sync_pairs(
    p_terminal_id uuid, p_fence bigint, p_employee_ids uuid[]
) returns table (
    employee_id uuid, version bigint, attempts integer, employee_no text, photo text,
    others text[], in_doubt boolean, was_wanted boolean
) language sql stable security definer set search_path = '' as $$
    select pair.employee_id, pair.wanted, pair.attempts, pair.employee_no,
           hikvision_sync.known_photo(
               hikvision_sync.hardware(terminal), pair.employee_id, pair.employee_no, pair.photo),
           hikvision_sync.other_numbers(
               hikvision_sync.hardware(terminal), pair.employee_id, pair.employee_no),
           pair.in_doubt, pair.wanted > pair.done
    from hikvision_sync.terminals terminal
    join hikvision_sync.pairs pair on pair.terminal_id = terminal.terminal_id
    where terminal.terminal_id = p_terminal_id and terminal.fence = p_fence
      and terminal.leased_by is not null and pair.employee_id = any (p_employee_ids)
$$;

-- Want one pair of a leased terminal now, even if it is done, return it, and lengthen the lease.
-- Promise: when the button's push fails, or its receiver dies in it, the pair stays wanted and the
-- worker finishes it. No row: the lease is lost. was_wanted: the pair was wanted before, for
-- another reason.
create or replace function public.hikvision_sync_take(
    p_terminal_id uuid, p_fence bigint, p_lease_seconds double precision, p_employee_id uuid
) returns table (
    employee_id uuid, version bigint, attempts integer, employee_no text, photo text,
    others text[], in_doubt boolean, was_wanted boolean
) language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
begin
    perform from public.hikvision_sync_renew(p_terminal_id, p_fence, p_lease_seconds);
    return query
        with leased as (
            select terminal.terminal_id, hikvision_sync.hardware(terminal) as hardware
            from hikvision_sync.terminals terminal
            where terminal.terminal_id = p_terminal_id and terminal.fence = p_fence
              and terminal.leased_by is not null
        ), taken as (
            insert into hikvision_sync.pairs as pair (terminal_id, employee_id)
                select leased.terminal_id, p_employee_id from leased
                on conflict (terminal_id, employee_id) do update set
                    wanted = pair.wanted + 1,
                    wanted_since = case when pair.wanted > pair.done then pair.wanted_since
                                        else clock_timestamp() end,
                    next_attempt_at = clock_timestamp()
                returning pair.*
        )
        select taken.employee_id, taken.wanted, taken.attempts, taken.employee_no,
               hikvision_sync.known_photo(
                   leased.hardware, taken.employee_id, taken.employee_no, taken.photo),
               hikvision_sync.other_numbers(
                   leased.hardware, taken.employee_id, taken.employee_no),
               taken.in_doubt, taken.wanted > taken.done + 1
        from leased join taken on taken.terminal_id = leased.terminal_id;
end $$;

-- Note a number before it is put on a terminal, or before the face under it is changed there.
-- Promise: the ledger knows every person whom a call may put there, before the call is made; and
-- from then on it believes in no photo there until one is recorded. So a receiver that dies before
-- it records leaves no person behind who could not be removed, and no photo that passes for
-- another. Another person who had the number on this terminal has it no longer. p_photo is what the
-- ledger believes of the photo from now on; photo is that, or `anothers` (known_photo): the face that
-- is there would let another person in.
create or replace function public.hikvision_sync_intend(
    p_terminal_id uuid, p_fence bigint, p_lease_seconds double precision,
    p_employee_id uuid, p_employee_no text, p_photo text
) returns table (held boolean, photo text)
language plpgsql security definer set search_path = '' as $$
declare
    v_held boolean;
    v_photo text;
begin
    select renewed.held into v_held
        from public.hikvision_sync_renew(p_terminal_id, p_fence, p_lease_seconds) renewed;
    if v_held then
        perform hikvision_sync.lock_numbers(
            p_terminal_id, array[p_employee_id], array[p_employee_no]);
        perform hikvision_sync.give_number(p_terminal_id, p_employee_id, p_employee_no);
        update hikvision_sync.pairs pair set employee_no = p_employee_no, photo = p_photo
        where pair.terminal_id = p_terminal_id and pair.employee_id = p_employee_id;
        select hikvision_sync.known_photo(
                hikvision_sync.hardware(terminal), p_employee_id, p_employee_no, p_photo)
            into v_photo
            from hikvision_sync.terminals terminal where terminal.terminal_id = p_terminal_id;
    end if;
    return query select v_held, v_photo;
end $$;

-- Return by employee a fingerprint of what HR has of them now: an object. Empty where HR's tables
-- cannot be read, or are locked by a migration, which must not keep an outcome from being recorded;
-- nothing of whom HR does not have.
create or replace function hikvision_sync.fingerprints(p_employee_ids uuid[])
returns jsonb language plpgsql stable security definer
set search_path = '' set lock_timeout = '200ms' as $$
begin
    if cardinality(p_employee_ids) = 0 then
        return '{}';
    end if;
    return (select coalesce(jsonb_object_agg(one.hr ->> 'id', md5(one.hr::text)), '{}')
            from jsonb_array_elements(
                public.hikvision_sync_employees(p_employee_ids)) as one(hr));
exception when others then
    return '{}';
end $$;

-- Record what became of some pairs of a leased terminal, and lengthen the lease.
-- p_outcomes is an array of objects: employee_id, version, status, step, message; employee_no,
-- photo and others, which are what the terminal holds now, null for nothing; retry_seconds; and
-- confirmed_ago, how many seconds ago the terminal itself said so, null where it did not.
-- Promise: where retry_seconds is null the claimed version is done, whatever its status: bad data
-- is done until HR changes it. Otherwise the pair stays wanted, and is due again after so many
-- seconds. Safe to repeat. held = false: nothing was written, and the next holder does it again.
-- They are recorded in order: of two with one number the last one has it.
create or replace function public.hikvision_sync_record(
    p_terminal_id uuid, p_fence bigint, p_lease_seconds double precision, p_outcomes jsonb
) returns table (held boolean) language plpgsql security definer set search_path = '' as $$
declare
    v_held boolean;
    v_now timestamptz;
    v_hardware text;
    v_refused jsonb;
    v_one record;
begin
    select renewed.held into v_held
        from public.hikvision_sync_renew(p_terminal_id, p_fence, p_lease_seconds) renewed;
    if not v_held then
        return query select false;
        return;
    end if;
    perform hikvision_sync.lock_numbers(
        p_terminal_id, array_agg(one.employee_id), array_agg(one.employee_no))
        from jsonb_to_recordset(p_outcomes) as one(employee_id uuid, employee_no text);
    v_refused := hikvision_sync.fingerprints(array(
        select one.employee_id
        from jsonb_to_recordset(p_outcomes) as one(employee_id uuid, status text)
        where one.status <> 'success'));
    v_now := clock_timestamp();
    select hikvision_sync.hardware(terminal) into v_hardware
        from hikvision_sync.terminals terminal where terminal.terminal_id = p_terminal_id;
    for v_one in
        select one.* from rows from (jsonb_to_recordset(p_outcomes) as (
            employee_id uuid, version bigint, status text, step text, message text,
            employee_no text, photo text, others text[], retry_seconds double precision,
            confirmed_ago double precision)) with ordinality as one
        order by one.ordinality
    loop
        update hikvision_sync.pairs pair set
            -- wanted -> done, or wanted -> wanted later. An edit since the claim has reset
            -- attempts and next_attempt_at: they belong to that edit, and are left alone.
            done = case when v_one.retry_seconds is null
                        then greatest(pair.done, least(v_one.version, pair.wanted))
                        else pair.done end,
            attempts = case when pair.wanted > v_one.version then pair.attempts
                            when v_one.retry_seconds is null then 0 else pair.attempts + 1 end,
            next_attempt_at = case when pair.wanted > v_one.version then pair.next_attempt_at
                else v_now + make_interval(secs => coalesce(v_one.retry_seconds, 0)) end,
            wanted_since = case when v_one.retry_seconds is null then v_now
                                else pair.wanted_since end,
            in_doubt = pair.in_doubt and (v_one.retry_seconds is not null
                                          or pair.wanted > v_one.version),
            status = v_one.status, step = v_one.step, message = left(v_one.message, 500),
            refused = v_refused ->> v_one.employee_id::text,
            recorded_at = v_now,
            -- Who is done otherwise than before, and not confirmed so, is not confirmed.
            confirmed_at = case when v_one.confirmed_ago is not null
                                then v_now - make_interval(secs => v_one.confirmed_ago)
                                when v_one.retry_seconds is not null then pair.confirmed_at end,
            employee_no = v_one.employee_no,
            -- photo_seen says so since intend: which of the two was sent, nobody knows.
            photo = case when v_one.photo = 'anothers'
                           or pair.photo = 'replaced' and v_one.photo is not null then 'unknown'
                         else v_one.photo end
        where pair.terminal_id = p_terminal_id and pair.employee_id = v_one.employee_id
          and pair.done <= v_one.version;  -- what came of an older version is not true any more
        if found then
            if v_one.employee_no is not null then
                perform hikvision_sync.give_number(
                    p_terminal_id, v_one.employee_id, v_one.employee_no);
                update hikvision_sync.numbers number set anothers = false   -- it is theirs, or none
                where number.hardware = v_hardware and number.anothers
                  and number.employee_no = v_one.employee_no
                  and case when v_one.photo is null then v_one.status = 'success'
                           else v_one.photo not in ('anothers', 'unknown', 'not there') end;
            end if;
            update hikvision_sync.numbers number set there = false
            where number.hardware = v_hardware and number.employee_id = v_one.employee_id
              and number.there and number.employee_no is distinct from v_one.employee_no
              and not number.employee_no = any (coalesce(v_one.others, '{}'));
        end if;
    end loop;
    -- Whoever came or went moved the others: a verification's next page may pass over some.
    update hikvision_sync.terminals terminal
        set verification = terminal.verification || '{"unsure": true}'
        where terminal.terminal_id = p_terminal_id and terminal.verification is not null;
    return query select true;
end $$;

-- Give a terminal back.
-- Promise: no other receiver leases it for p_pause_seconds: the pause between two calls to a
-- terminal holds across receivers too, and within one its gate keeps it. With p_rest_seconds the
-- terminal rests that long for p_reason, unless its row in dispozitive_pontaj was changed since it
-- was leased: then the reason may be gone. held = false: another receiver leased it. Safe to
-- repeat.
create or replace function public.hikvision_sync_release(
    p_terminal_id uuid, p_fence bigint, p_pause_seconds double precision,
    p_failures integer, p_rest_seconds double precision, p_reason text, p_login_refused boolean,
    p_kind text default null
) returns table (held boolean) language plpgsql security definer set search_path = '' as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    update hikvision_sync.terminals terminal set   -- leased -> free
        last_held_by = terminal.leased_by,
        leased_by = null,
        leased_until = null,
        free_at = v_now + make_interval(secs => least(p_pause_seconds, 60)),
        failures = case when terminal.changed_at >= terminal.leased_at then 0 else p_failures end,
        rests_until = case when terminal.changed_at >= terminal.leased_at then null
                           else v_now + make_interval(secs => p_rest_seconds) end,
        rest_reason = case when terminal.changed_at >= terminal.leased_at then null
                           else left(p_reason, 500) end,
        rest_kind = left(p_kind, 20),              -- says something only beside a rest_reason
        login_refused = p_login_refused
            and (terminal.changed_at is null or terminal.changed_at < terminal.leased_at)
    where terminal.terminal_id = p_terminal_id and terminal.fence = p_fence
      and terminal.leased_by is not null;
    return query select found or exists (    -- given back already, by a call whose answer got lost
        select from hikvision_sync.terminals terminal
        where terminal.terminal_id = p_terminal_id and terminal.fence = p_fence);
end $$;

-- Want one employee, or (null) every employee, on every active terminal, as if HR had edited them.
-- An operator calls this to fill the terminals after installing, or to have them looked through.
create or replace function public.hikvision_sync_want(p_employee_id uuid)
returns table (employees bigint) language plpgsql security definer
set search_path = '' set row_security = off as $$
declare
    v_count bigint;
begin
    insert into hikvision_sync.edits (employee_id)
        select employee.id from public.angajati employee
        where p_employee_id is null or employee.id = p_employee_id
        union   -- also people whose row HR has deleted: they may still be on a terminal
        select pair.employee_id from hikvision_sync.pairs pair
        where p_employee_id is null or pair.employee_id = p_employee_id
        union   -- also those who were put on hardware before this software was installed again
        select number.employee_id from hikvision_sync.numbers number
        where number.there and (p_employee_id is null or number.employee_id = p_employee_id);
    get diagnostics v_count = row_count;
    return query select v_count;
end $$;

-- Let service_role alone execute the public functions, and only their owner the private ones.
-- Every file that makes functions ends with this: Postgres grants execute on a new function to
-- everybody, and Supabase grants it on one in public to its API roles besides.
create or replace function hikvision_sync.grant_to_service_role()
returns void language plpgsql set search_path = '' as $$
declare
    v_function regprocedure;
begin
    revoke all on all functions in schema hikvision_sync from public;
    for v_function in
        select function.oid::regprocedure from pg_catalog.pg_proc function
        where function.pronamespace = 'public'::regnamespace
          and function.proname like 'hikvision\_sync\_%'
    loop
        execute format('revoke all on function %s from public, anon, authenticated', v_function);
        execute format('grant execute on function %s to service_role', v_function);
    end loop;
end $$;

insert into hikvision_sync.files (name, version) values ('0002_ledger', 2)
    on conflict (name) do update set version = excluded.version;

select hikvision_sync.grant_to_service_role();

notify pgrst, 'reload schema';

commit;
