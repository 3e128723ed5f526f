-- The functions of the ledger, which the receiver calls: claim, lease, record and the like. Needs
-- 0001_tables.sql. Safe to run again.
--
-- No save of HR waits for this file: it changes functions alone.

begin;

-- Spread waiting edits over the terminals as wanted pairs. An employee's: over the active ones, and
-- over those that may hold the person and are not active now, where the pair waits until they are.
-- A terminal's: all active employees, and those who have a number and may not pass: nobody knows who
-- is on it. Called by claim.
-- Promise: an edit is deleted in the same transaction that makes its pairs wanted. Two receivers
-- doing this at once take different edits, and write pairs in one statement in one order: they may
-- wait for each other's short transactions, but never deadlock. The size is bounded so that a call
-- stays far below PostgREST's statement timeout (8 s).
create or replace function hikvision_sync.spread_edits()
returns void language plpgsql security definer set search_path = '' as $$
declare
    v_terminals integer;
    v_persons integer;
    v_employee_ids uuid[];
    v_terminal_ids uuid[];
    v_edited_at timestamptz[];
begin
    if not exists (select from hikvision_sync.edits) then
        return;
    end if;
    select count(*) into v_terminals from public.dispozitive_pontaj d where d.status = 'activ';
    select count(*) into v_persons from public.angajati a;
    with taken as (
        delete from hikvision_sync.edits e
        where e.id in (
            select i.id from hikvision_sync.edits i where i.employee_id is not null order by i.id
            limit greatest(1, 20000 / greatest(1, v_terminals))
            for update skip locked
        )
        returning e.*
    ), fills as (
        delete from hikvision_sync.edits e
        where e.id in (
            select i.id from hikvision_sync.edits i where i.employee_id is null order by i.id
            limit greatest(1, 20000 / greatest(1, v_persons))
            for update skip locked
        )
        returning e.*
    )
    select array_agg(t.employee_id), array_agg(t.terminal_id), array_agg(t.edited_at)
        into v_employee_ids, v_terminal_ids, v_edited_at
        from (select * from taken union all select * from fills) t;
    if v_edited_at is null then
        return;
    end if;
    delete from hikvision_sync.posts p where p.ctid in (
        select o.ctid from hikvision_sync.posts o
        where o.posted_at < clock_timestamp() - interval '6 hours' for update skip locked);
    insert into hikvision_sync.terminals (terminal_id)
        select d.id from public.dispozitive_pontaj d where d.status = 'activ' order by d.id
        on conflict do nothing;
    with edited as (
        select e.employee_id, e.terminal_id, min(e.edited_at) as edited_at
        from unnest(v_employee_ids, v_terminal_ids, v_edited_at)
             as e(employee_id, terminal_id, edited_at)
        group by e.employee_id, e.terminal_id
    )
    insert into hikvision_sync.pairs as p (terminal_id, employee_id, wanted_since, leaves)
        select w.terminal_id, w.employee_id, min(w.edited_at),
               bool_and(h.employee_no is not null and passes.id is null)
        from (
            select d.id as terminal_id, e.employee_id, e.edited_at
            from edited e
            cross join public.dispozitive_pontaj d
            where e.employee_id is not null
              and (d.status = 'activ'
                   or exists (select from hikvision_sync.pairs h
                              where h.terminal_id = d.id and h.employee_id = e.employee_id))
            union all
            select d.id, a.id, e.edited_at
            from edited e
            join public.dispozitive_pontaj d on d.id = e.terminal_id
            cross join public.angajati a
            where e.employee_id is null
              and (a.status = 'activ'
                   or exists (select from public.angajati_biometrie b
                              where b.angajat_id = a.id and b.employee_no is not null))
        ) w
        left join hikvision_sync.pairs h
            on h.terminal_id = w.terminal_id and h.employee_id = w.employee_id
        left join (
            select a.id
            from public.angajati a join public.angajati_biometrie b on b.angajat_id = a.id
            where a.status = 'activ' and b.employee_no is not null
        ) passes on passes.id = w.employee_id
        group by w.terminal_id, w.employee_id
        order by w.terminal_id, w.employee_id
        on conflict (terminal_id, employee_id) do update set
            wanted = p.wanted + 1,
            wanted_since = case when p.wanted > p.done then p.wanted_since
                                else excluded.wanted_since end,
            leaves = excluded.leaves,
            attempts = 0,
            next_attempt_at = clock_timestamp();
end $$;

-- Make a free terminal p_receiver's; free -> leased. Its row must be locked by the caller.
create or replace function hikvision_sync.take_lease(
    p_terminal_id uuid, p_receiver text, p_now timestamptz, p_lease_seconds double precision
) returns hikvision_sync.terminals language sql security definer set search_path = '' as $$
    update hikvision_sync.terminals t set
        fence = t.fence + 1,
        leased_by = p_receiver,
        leased_at = p_now,
        leased_until = p_now + make_interval(secs => least(p_lease_seconds, 600))
    where t.terminal_id = p_terminal_id
    returning t.*
$$;

-- Whether a terminal is to be asked which hardware it is: never asked, not for a while, or not
-- since something went wrong, after which another may stand there.
create or replace function hikvision_sync.look_due(
    t hikvision_sync.terminals, p_now timestamptz, p_look_seconds double precision
) returns boolean language sql immutable set search_path = '' as $$
    select t.looked_at is null or t.failures > 0
        or t.looked_at < p_now - make_interval(secs => p_look_seconds)
$$;

-- Functions that answer or are asked in another shape than in an earlier version of this file.
drop function if exists public.hikvision_sync_claim(text, double precision, integer);
drop function if exists public.hikvision_sync_lease(text, uuid, double precision);
drop function if exists public.hikvision_sync_record(
    uuid, bigint, double precision, uuid, bigint, text, text, text, text, text, double precision);
drop function if exists public.hikvision_sync_intend(uuid, bigint, double precision, uuid, text);
drop function if exists public.hikvision_sync_release(
    uuid, bigint, double precision, integer, double precision, text);
drop function if exists public.hikvision_sync_release(
    uuid, bigint, double precision, integer, double precision, text, boolean);

-- Lease one terminal that has due work and return up to p_limit of its wanted pairs; or one that is
-- to be looked at, which may have none: then a single row without an employee.
-- Promise: no two callers get the same terminal (for update skip locked); terminals take turns,
-- the one that waited longest first; no row means nothing is due. Who may not pass any more does not
-- wait behind an import that takes hours: terminals with leavers go before all others, and are left
-- again when these are done. Reads pairs without locking them: the lease is the lock.
create or replace function public.hikvision_sync_claim(
    p_receiver text, p_lease_seconds double precision, p_limit integer,
    p_look_seconds double precision default 900
) returns table (
    terminal_id uuid, fence bigint, failures integer, device jsonb, look boolean,
    employee_id uuid, version bigint, attempts integer, employee_no text, photo text
) language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
    v_now timestamptz;
    v_terminal_id uuid;
    v_terminal hikvision_sync.terminals;
    v_leavers boolean;
begin
    perform hikvision_sync.spread_edits();
    v_now := clock_timestamp();
    select t.terminal_id, l.leavers into v_terminal_id, v_leavers
    from hikvision_sync.terminals t
    join public.dispozitive_pontaj d on d.id = t.terminal_id and d.status = 'activ'
    cross join lateral (
        select exists (select from hikvision_sync.pairs p
                       where p.terminal_id = t.terminal_id and p.leaves and p.wanted > p.done
                         and p.next_attempt_at <= v_now) as leavers) l
    where (t.leased_by is null or t.leased_until < v_now)
      and (t.free_at <= v_now or t.last_held_by = p_receiver)
      and (t.rests_until is null or t.rests_until <= v_now)
      and (t.looked_at < v_now - make_interval(secs => p_look_seconds)
           or exists (select from hikvision_sync.pairs p
                      where p.terminal_id = t.terminal_id and p.wanted > p.done
                        and p.next_attempt_at <= v_now))
    order by l.leavers desc, t.leased_at nulls first, t.terminal_id
    limit 1
    for update of t skip locked;
    if not found then
        return;
    end if;
    v_terminal := hikvision_sync.take_lease(v_terminal_id, p_receiver, v_now, p_lease_seconds);
    return query
        select v_terminal.terminal_id, v_terminal.fence, v_terminal.failures, v_terminal.device,
               hikvision_sync.look_due(v_terminal, v_now, p_look_seconds),
               w.employee_id, w.wanted, w.attempts, w.employee_no, w.photo
        from (select) one left join lateral (
            select p.* from hikvision_sync.pairs p
            where p.terminal_id = v_terminal.terminal_id and p.wanted > p.done
              and p.next_attempt_at <= v_now and (p.leaves or not v_leavers)
            order by p.leaves desc, p.attempts, p.wanted_since, p.employee_id
            limit least(p_limit, 1000)) w on true;
end $$;

-- Lease one named terminal, for a look at it or a button's push.
-- Promise: state is `leased` (with the fence to show later), or `busy` (another holds it, or its
-- pause is not over) or `resting` (left alone for rest_reason, because it refused the login and
-- trying again would lock the account); only the first leases anything. A terminal that rests for
-- another reason is leased: somebody wants to know now.
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
    select t.* into v_terminal from hikvision_sync.terminals t
        where t.terminal_id = p_terminal_id for update;
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
-- Promise: held = false means another receiver may be at the terminal; make no further call.
create or replace function public.hikvision_sync_renew(
    p_terminal_id uuid, p_fence bigint, p_lease_seconds double precision
) returns table (held boolean) language plpgsql security definer set search_path = '' as $$
begin
    update hikvision_sync.terminals t set
        leased_until = greatest(t.leased_until, clock_timestamp()
                                + make_interval(secs => least(p_lease_seconds, 600)))
    where t.terminal_id = p_terminal_id and t.fence = p_fence and t.leased_by is not null;
    return query select found;
end $$;

-- Remember what hardware and firmware stand behind a leased terminal, and what they were found to
-- take. p_device is a jsonb object; its `serial` tells one piece of hardware from another.
-- Promise: replaced = true means another one stands there now. The ledger for it starts again: what
-- it holds is unknown, and everybody is wanted there, those too who may not pass. Safe to repeat: it
-- says so again under the same lease, whose visit is over.
create or replace function public.hikvision_sync_meet(
    p_terminal_id uuid, p_fence bigint, p_lease_seconds double precision, p_device jsonb
) returns table (held boolean, replaced boolean)
language plpgsql security definer set search_path = '' as $$
declare
    v_held boolean;
    v_replaced boolean;
    v_told boolean;
    v_now timestamptz;
begin
    select r.held into v_held
        from public.hikvision_sync_renew(p_terminal_id, p_fence, p_lease_seconds) r;
    if v_held then
        v_now := clock_timestamp();
        select nullif(t.device ->> 'serial', '') <> nullif(p_device ->> 'serial', ''),
               t.replaced_at_fence = p_fence
            into v_replaced, v_told
            from hikvision_sync.terminals t where t.terminal_id = p_terminal_id;
        update hikvision_sync.terminals t set
            device = p_device,
            -- Its row was changed since it was leased: this was perhaps still the old address.
            looked_at = case when t.changed_at >= t.leased_at then t.looked_at else v_now end,
            replaced_at_fence = case when v_replaced then p_fence else t.replaced_at_fence end
        where t.terminal_id = p_terminal_id;
        if v_replaced then
            update hikvision_sync.pairs p set
                wanted = p.wanted + 1,
                wanted_since = case when p.wanted > p.done then p.wanted_since else v_now end,
                attempts = 0,
                next_attempt_at = v_now,
                photo = case when p.employee_no is not null then 'unknown' end
            from (select h.employee_id from hikvision_sync.pairs h  -- in claim's order: no deadlock
                  where h.terminal_id = p_terminal_id order by h.employee_id for update) o
            where p.terminal_id = p_terminal_id and p.employee_id = o.employee_id;
            insert into hikvision_sync.edits (terminal_id) values (p_terminal_id);
        end if;
    end if;
    return query select v_held, coalesce(v_replaced, false) or coalesce(v_told, false);
end $$;

-- Lock an employee's pair with a terminal, and that of whoever has the number there.
-- Promise: in the order in which spread_edits locks them, so that neither waits for the other.
create or replace function hikvision_sync.lock_number(
    p_terminal_id uuid, p_employee_id uuid, p_employee_no text
) returns void language plpgsql security definer set search_path = '' as $$
begin
    perform from hikvision_sync.pairs p
    where p.terminal_id = p_terminal_id
      and (p.employee_id = p_employee_id or p.employee_no = p_employee_no)
    order by p.employee_id
    for update;
end $$;

-- Return up to p_limit due pairs of a terminal that is already leased, as claim does.
-- Promise: a button's long run serves what HR edits meanwhile, at its next visit to the terminal.
create or replace function public.hikvision_sync_due(
    p_terminal_id uuid, p_fence bigint, p_limit integer
) returns table (
    terminal_id uuid, fence bigint, failures integer,
    employee_id uuid, version bigint, attempts integer, employee_no text, photo text
) language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
begin
    perform hikvision_sync.spread_edits();
    return query
        select t.terminal_id, t.fence, t.failures,
               p.employee_id, p.wanted, p.attempts, p.employee_no, p.photo
        from hikvision_sync.terminals t
        join hikvision_sync.pairs p on p.terminal_id = t.terminal_id
        where t.terminal_id = p_terminal_id and t.fence = p_fence and t.leased_by is not null
          and p.wanted > p.done and p.next_attempt_at <= clock_timestamp()
        order by p.leaves desc, p.attempts, p.wanted_since, p.employee_id
        limit least(p_limit, 1000);
end $$;

-- Want one pair of a leased terminal now, whatever was done before, and return it.
-- Promise: a button's push that fails, or whose receiver dies in it, stays wanted: the worker
-- finishes it. No row: the lease is lost. was_wanted: so it was before, for some other reason.
create or replace function public.hikvision_sync_take(
    p_terminal_id uuid, p_fence bigint, p_employee_id uuid
) returns table (
    terminal_id uuid, fence bigint, failures integer,
    employee_id uuid, version bigint, attempts integer, employee_no text, photo text,
    was_wanted boolean
) language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
begin
    return query
        with leased as (
            select t.terminal_id, t.fence, t.failures from hikvision_sync.terminals t
            where t.terminal_id = p_terminal_id and t.fence = p_fence and t.leased_by is not null
        ), taken as (
            insert into hikvision_sync.pairs as p (terminal_id, employee_id)
                select l.terminal_id, p_employee_id from leased l
                on conflict (terminal_id, employee_id) do update set
                    wanted = p.wanted + 1,
                    wanted_since = case when p.wanted > p.done then p.wanted_since
                                        else clock_timestamp() end,
                    next_attempt_at = clock_timestamp()
                returning p.*
        )
        select l.terminal_id, l.fence, l.failures,
               p.employee_id, p.wanted, p.attempts, p.employee_no, p.photo, p.wanted > p.done + 1
        from leased l join taken p on p.terminal_id = l.terminal_id;
end $$;

-- Note under which number a person is about to be put on a terminal, or to get another face there.
-- Promise: whoever a call may put there is known here before it is made, and from then on no photo is
-- believed to be there until one is recorded; a receiver that dies before it records leaves nobody
-- behind who could not be made to leave, and no photo that is taken for another. Whoever had the
-- number on this terminal has it no longer.
create or replace function public.hikvision_sync_intend(
    p_terminal_id uuid, p_fence bigint, p_lease_seconds double precision,
    p_employee_id uuid, p_employee_no text
) returns table (held boolean)
language plpgsql security definer set search_path = '' as $$
declare
    v_held boolean;
begin
    select r.held into v_held
        from public.hikvision_sync_renew(p_terminal_id, p_fence, p_lease_seconds) r;
    if v_held then
        perform hikvision_sync.lock_number(p_terminal_id, p_employee_id, p_employee_no);
        update hikvision_sync.pairs p set employee_no = null, photo = null
        where p.terminal_id = p_terminal_id and p.employee_no = p_employee_no
          and p.employee_id <> p_employee_id;
        update hikvision_sync.pairs p set employee_no = p_employee_no, photo = 'unknown'
        where p.terminal_id = p_terminal_id and p.employee_id = p_employee_id;
    end if;
    return query select v_held;
end $$;

-- Record what became of one claimed pair, and lengthen the lease.
-- Promise: with p_retry_seconds null the claimed version is done (whatever its status: bad data
-- is done until HR changes it); otherwise the pair stays wanted and is due again after so many
-- seconds. Safe to repeat. held = false: nothing was written, the next holder does it again.
-- p_late: they were recorded before, by a push that was only now asked back; what the ledger has of
-- them since is left alone.
-- p_employee_no and p_photo are what the terminal holds now, null for nothing. A number is one
-- person's: whoever held it there before holds it no longer, and will not have it ended.
create or replace function public.hikvision_sync_record(
    p_terminal_id uuid, p_fence bigint, p_lease_seconds double precision,
    p_employee_id uuid, p_version bigint,
    p_status text, p_step text, p_message text,
    p_employee_no text, p_photo text, p_retry_seconds double precision,
    p_late boolean default false
) returns table (held boolean) language plpgsql security definer set search_path = '' as $$
declare
    v_held boolean;
    v_now timestamptz;
begin
    select r.held into v_held
        from public.hikvision_sync_renew(p_terminal_id, p_fence, p_lease_seconds) r;
    if v_held then
        perform hikvision_sync.lock_number(p_terminal_id, p_employee_id, p_employee_no);
        v_now := clock_timestamp();
        update hikvision_sync.pairs p set
            -- wanted -> done, or wanted -> wanted later. An edit since the claim has reset
            -- attempts and next_attempt_at: they are its own, and are left alone.
            done = case when p_retry_seconds is null
                        then greatest(p.done, least(p_version, p.wanted)) else p.done end,
            attempts = case when p.wanted > p_version then p.attempts
                            when p_retry_seconds is null then 0 else p.attempts + 1 end,
            next_attempt_at = case when p.wanted > p_version then p.next_attempt_at
                else v_now + make_interval(secs => coalesce(p_retry_seconds, 0)) end,
            wanted_since = case when p_retry_seconds is null then v_now else p.wanted_since end,
            status = p_status, step = p_step, message = left(p_message, 500), recorded_at = v_now,
            employee_no = case when p_late then p.employee_no else p_employee_no end,
            photo = case when not p_late then p_photo
                         when p_status = 'success' or p.employee_no is null then p.photo
                         else 'unknown' end
        where p.terminal_id = p_terminal_id and p.employee_id = p_employee_id
          and p.done <= p_version;  -- what came of an older version is not true any more
        if found and not p_late then
            update hikvision_sync.pairs p set employee_no = null, photo = null
            where p.terminal_id = p_terminal_id and p.employee_no = p_employee_no
              and p.employee_id <> p_employee_id;
        end if;
    end if;
    return query select v_held;
end $$;

-- Give a terminal back.
-- Promise: no other receiver leases it for p_pause_seconds (the pause between two device calls holds
-- across receivers too; within one, its gate keeps it). With p_rest_seconds it is left alone that
-- long for p_reason, unless its row in dispozitive_pontaj was changed since it was leased: then the
-- reason may be gone. held = false: another leased it. Safe to repeat.
create or replace function public.hikvision_sync_release(
    p_terminal_id uuid, p_fence bigint, p_pause_seconds double precision,
    p_failures integer, p_rest_seconds double precision, p_reason text, p_login_refused boolean,
    p_kind text default null
) returns table (held boolean) language plpgsql security definer set search_path = '' as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    update hikvision_sync.terminals t set          -- leased -> free
        last_held_by = t.leased_by,
        leased_by = null,
        leased_until = null,
        free_at = v_now + make_interval(secs => least(p_pause_seconds, 60)),
        failures = case when t.changed_at >= t.leased_at then 0 else p_failures end,
        rests_until = case when t.changed_at >= t.leased_at then null
                           else v_now + make_interval(secs => p_rest_seconds) end,
        rest_reason = case when t.changed_at >= t.leased_at then null else left(p_reason, 500) end,
        rest_kind = left(p_kind, 20),              -- says something only beside a rest_reason
        login_refused = p_login_refused and (t.changed_at is null or t.changed_at < t.leased_at)
    where t.terminal_id = p_terminal_id and t.fence = p_fence and t.leased_by is not null;
    return query select found or exists (    -- given back already, by a call whose answer got lost
        select from hikvision_sync.terminals t
        where t.terminal_id = p_terminal_id and t.fence = p_fence);
end $$;

-- Want one employee, or (null) every employee, on every active terminal, as if HR had edited them.
-- For the first fill after installing, and for an operator who mistrusts a terminal.
create or replace function public.hikvision_sync_want(p_employee_id uuid)
returns table (employees bigint) language plpgsql security definer set search_path = '' as $$
declare
    v_count bigint;
begin
    insert into hikvision_sync.edits (employee_id)
        select a.id from public.angajati a
        where p_employee_id is null or a.id = p_employee_id
        union   -- those of whom HR has no row any more, too: they may still be on a terminal
        select p.employee_id from hikvision_sync.pairs p
        where p_employee_id is null or p.employee_id = p_employee_id;
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

select hikvision_sync.grant_to_service_role();

notify pgrst, 'reload schema';

commit;
