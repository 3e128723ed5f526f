-- The verification: what a terminal said when it was asked for everybody, page by page, and what
-- storage said of the photos. Needs 0001 and 0002. Safe to run again.

begin;

-- Return who may be behind some numbers on a leased terminal: whom HR gave the number, whom the
-- terminal's pair gives it, and whom it was put there for. One row for each number and employee.
-- No row where the lease is lost.
create or replace function public.hikvision_sync_owners(
    p_terminal_id uuid, p_fence bigint, p_employee_nos text[]
) returns table (
    number text, employee_id uuid, version bigint, wanted boolean, status text,
    employee_no text, photo text, others text[]
) language sql stable security definer set search_path = '' set row_security = off as $$
    select owner.employee_no, owner.employee_id, coalesce(pair.wanted, 0),
           coalesce(pair.wanted > pair.done, false), pair.status, pair.employee_no,
           hikvision_sync.known_photo(
               hikvision_sync.hardware(terminal), owner.employee_id, pair.employee_no, pair.photo),
           hikvision_sync.other_numbers(
               hikvision_sync.hardware(terminal), owner.employee_id, pair.employee_no)
    from hikvision_sync.terminals terminal
    cross join lateral (
        select btrim(biometrics.employee_no::text) as employee_no,
               biometrics.angajat_id as employee_id
        from public.angajati_biometrie biometrics
        where btrim(biometrics.employee_no::text) = any (p_employee_nos)
          and biometrics.angajat_id is not null
        union
        select held.employee_no, held.employee_id from hikvision_sync.pairs held
        where held.terminal_id = p_terminal_id and held.employee_no = any (p_employee_nos)
        union
        select remembered.employee_no, remembered.employee_id
        from hikvision_sync.numbers remembered
        where remembered.hardware = hikvision_sync.hardware(terminal)
          and remembered.employee_no = any (p_employee_nos)
    ) owner
    left join hikvision_sync.pairs pair
        on pair.terminal_id = p_terminal_id and pair.employee_id = owner.employee_id
    where terminal.terminal_id = p_terminal_id and terminal.fence = p_fence
      and terminal.leased_by is not null
    order by owner.employee_no, owner.employee_id
$$;

-- Note what one page of a verification showed, and lengthen the lease.
-- p_confirmed is an array of {employee_id, version}: the terminal said p_ago seconds ago that it
-- holds what is done. p_different is an array of {employee_id, number, leaves}: it holds something
-- else under the number, and the pair is wanted. p_state is how far the verification has come, to
-- be given to whoever goes on; null: it is over, and p_found are its figures, or null where the
-- terminal cannot be asked whom it holds.
-- Promise: a pair that was edited since it was read is not confirmed. Once the verification is
-- over, everybody is wanted who should be there and was on no page. Safe to repeat.
create or replace function public.hikvision_sync_verified(
    p_terminal_id uuid, p_fence bigint, p_lease_seconds double precision,
    p_ago double precision, p_confirmed jsonb, p_different jsonb, p_state jsonb, p_found jsonb
) returns table (held boolean) language plpgsql security definer set search_path = '' as $$
declare
    v_held boolean;
    v_now timestamptz;
    v_hardware text;
begin
    select renewed.held into v_held
        from public.hikvision_sync_renew(p_terminal_id, p_fence, p_lease_seconds) renewed;
    if not v_held then
        return query select false;
        return;
    end if;
    if p_state is null and exists (
            select from hikvision_sync.terminals terminal
            where terminal.terminal_id = p_terminal_id and terminal.verification is null
              and terminal.verified_at >= terminal.leased_at) then
        return query select true;      -- the answer of the last call got lost
        return;
    end if;
    v_now := clock_timestamp();
    update hikvision_sync.terminals terminal set
        verify_began_at = case when terminal.verification is null
                               then v_now - make_interval(secs => p_ago)
                               else terminal.verify_began_at end,
        verification = coalesce(p_state, '{}')
    where terminal.terminal_id = p_terminal_id;
    perform hikvision_sync.lock_numbers(p_terminal_id, array_agg(one.employee_id), '{}')
        from jsonb_to_recordset(p_confirmed || p_different) as one(employee_id uuid);
    update hikvision_sync.pairs pair set confirmed_at = v_now - make_interval(secs => p_ago)
        from jsonb_to_recordset(p_confirmed) as one(employee_id uuid, version bigint)
        where pair.terminal_id = p_terminal_id and pair.employee_id = one.employee_id
          and pair.wanted = one.version and pair.done = one.version;
    select hikvision_sync.hardware(terminal) into v_hardware
        from hikvision_sync.terminals terminal where terminal.terminal_id = p_terminal_id;
    update hikvision_sync.numbers number set there = true
        from jsonb_to_recordset(p_different) as one(employee_id uuid, number text)
        where number.hardware = v_hardware and number.employee_no = one.number
          and number.employee_id = one.employee_id and not number.there;
    insert into hikvision_sync.pairs as pair
            (terminal_id, employee_id, wanted_since, leaves, in_doubt)
        select p_terminal_id, one.employee_id, v_now, bool_or(one.leaves), true
        from jsonb_to_recordset(p_different) as one(employee_id uuid, leaves boolean)
        group by one.employee_id order by one.employee_id
        on conflict (terminal_id, employee_id) do update set
            wanted = pair.wanted + 1, wanted_since = excluded.wanted_since,
            leaves = excluded.leaves, in_doubt = true, attempts = 0, next_attempt_at = v_now
        where pair.wanted = pair.done;
    if p_state is null and p_found is null then
        update hikvision_sync.terminals terminal set verification = null, verified = null
        where terminal.terminal_id = p_terminal_id;
    elsif p_state is null then
        perform hikvision_sync.end_verification(p_terminal_id, v_now, p_found);
        perform hikvision_sync.forget_rows();
    end if;
    return query select true;
end $$;

-- End a terminal's verification: want everybody who was on none of its pages and may have to be
-- there, and whoever was refused and is another for HR by now, though no edit told; and confirm that
-- the others are not there. Where somebody may have been on no page (`unsure`),
-- whoever was ever put on this hardware is wanted too, under each number that no page confirmed.
-- Who is wanted is asked for by number before anything is pushed: a page may have missed somebody.
create or replace function hikvision_sync.end_verification(
    p_terminal_id uuid, p_now timestamptz, p_found jsonb
) returns void language plpgsql security definer set search_path = '' as $$
declare
    v_began_at timestamptz;
    v_hardware text;
    v_unsure boolean := coalesce((p_found ->> 'unsure')::boolean, false);
    v_now_has jsonb := hikvision_sync.fingerprints(array(
        select pair.employee_id from hikvision_sync.pairs pair
        where pair.terminal_id = p_terminal_id and pair.status <> 'success'));
    v_missing bigint;
begin
    select terminal.verify_began_at, hikvision_sync.hardware(terminal)
        into v_began_at, v_hardware
        from hikvision_sync.terminals terminal where terminal.terminal_id = p_terminal_id;
    if v_unsure then
        update hikvision_sync.numbers number set there = true
        where number.hardware = v_hardware and not number.there;
    end if;
    with missing as (
        select pair.employee_id
        from hikvision_sync.pairs pair
        left join hikvision_sync.passing() passing on passing.employee_id = pair.employee_id
        where pair.terminal_id = p_terminal_id and pair.wanted = pair.done
          and (pair.confirmed_at is null or pair.confirmed_at < v_began_at)
          and pair.status is distinct from 'skipped'
          and (pair.employee_no is not null or passing.employee_id is not null)
        union    -- who was refused, and of whom HR has something else by now
        select pair.employee_id from hikvision_sync.pairs pair
        where pair.terminal_id = p_terminal_id and pair.wanted = pair.done
          and pair.status <> 'success'
          and pair.refused is distinct from v_now_has ->> pair.employee_id::text
        union
        select passing.employee_id from hikvision_sync.passing() passing
        where not exists (select from hikvision_sync.pairs pair
                          where pair.terminal_id = p_terminal_id
                            and pair.employee_id = passing.employee_id)
    ), doubted as (
        select number.employee_id
        from hikvision_sync.numbers number
        left join hikvision_sync.pairs pair
            on pair.terminal_id = p_terminal_id and pair.employee_id = number.employee_id
        where v_unsure and number.hardware = v_hardware
          and (pair.employee_no is distinct from number.employee_no
               or pair.confirmed_at is null or pair.confirmed_at < v_began_at)
    ), wanted as (
        insert into hikvision_sync.pairs as pair
                (terminal_id, employee_id, wanted_since, leaves, in_doubt)
            select p_terminal_id, asked.employee_id, p_now, false, true
            from (select * from missing union select * from doubted) asked
            order by asked.employee_id
            on conflict (terminal_id, employee_id) do update set
                wanted = pair.wanted + 1, wanted_since = p_now, in_doubt = true,
                attempts = 0, next_attempt_at = p_now
            where pair.wanted = pair.done
            returning pair.employee_id
    )
    select count(*) into v_missing
        from wanted join missing on missing.employee_id = wanted.employee_id;
    update hikvision_sync.pairs pair set confirmed_at = v_began_at
        where pair.terminal_id = p_terminal_id and pair.wanted = pair.done
          and pair.employee_no is null and pair.status = 'success'
          and (pair.confirmed_at is null or pair.confirmed_at < v_began_at);
    update hikvision_sync.terminals terminal set
        verification = null,
        verified_at = p_now,
        verified = p_found - 'unsure' || jsonb_build_object('missing', v_missing)
    where terminal.terminal_id = p_terminal_id;
end $$;

-- Delete rows that nothing needs any more: of terminals that HR deleted, because the memory of
-- numbers knows whom their hardware holds; and of employees whom HR deleted and no terminal holds.
create or replace function hikvision_sync.forget_rows()
returns void language plpgsql security definer set search_path = '' set row_security = off as $$
begin
    delete from hikvision_sync.pairs pair where pair.ctid in (
        select old.ctid from hikvision_sync.pairs old
        where not exists (select from public.dispozitive_pontaj device
                          where device.id = old.terminal_id)
           or (old.employee_no is null and old.wanted = old.done and old.status = 'success'
               and not exists (select from public.angajati employee
                               where employee.id = old.employee_id))
        limit 5000 for update skip locked);
    delete from hikvision_sync.photos photo
        where not exists (select from public.angajati employee
                          where employee.id = photo.employee_id);
    delete from hikvision_sync.terminals terminal
        where not exists (select from public.dispozitive_pontaj device
                          where device.id = terminal.terminal_id)
          and not exists (select from hikvision_sync.pairs pair
                          where pair.terminal_id = terminal.terminal_id)
          and terminal.leased_by is null;
end $$;

drop function if exists public.hikvision_sync_photo_seen(uuid, text, text);  -- an earlier version's

-- Return up to p_limit photos that were not asked for in p_every_seconds, those first that never
-- were, and note that they are asked for now: two receivers get different ones.
create or replace function public.hikvision_sync_photos_due(
    p_limit integer, p_every_seconds double precision
) returns table (employee_id uuid, reference text, etag text)
language sql volatile security definer set search_path = '' set row_security = off as $$
    with due as (
        select passing.employee_id, min(biometrics.foto_fata_url) as reference
        from hikvision_sync.passing() passing
        join public.angajati_biometrie biometrics on biometrics.angajat_id = passing.employee_id
        left join hikvision_sync.photos photo on photo.employee_id = passing.employee_id
        where biometrics.foto_fata_url <> ''
          and (photo.employee_id is null or photo.reference <> biometrics.foto_fata_url
               or photo.asked_at < clock_timestamp() - make_interval(secs => p_every_seconds))
        group by passing.employee_id
        order by min(coalesce(photo.asked_at, '-infinity')), passing.employee_id
        limit least(p_limit, 1000)
    )
    insert into hikvision_sync.photos as photo (employee_id, reference)
        select due.employee_id, due.reference from due order by due.employee_id
        on conflict (employee_id) do update set
            asked_at = clock_timestamp(),
            reference = excluded.reference,
            etag = case when photo.reference = excluded.reference then photo.etag end
        returning photo.employee_id, photo.reference, photo.etag
$$;

-- Note what storage says of a photo now, and when it was last changed (null: it does not say). Where
-- that is something else than before, or was changed since it was brought, the photo was replaced
-- under its name: no terminal is believed to have it, and its employee is wanted. If no look came
-- before, a change is not seen that falls between the fetching of a photo and its record, or into
-- the same second: storage tells a second by its beginning, and most photos are brought at once.
create or replace function public.hikvision_sync_photo_seen(
    p_employee_id uuid, p_reference text, p_etag text, p_changed_at timestamptz
) returns table (changed boolean) language plpgsql security definer set search_path = '' as $$
declare
    v_before text;
    v_replaced boolean;
begin
    select photo.etag into v_before from hikvision_sync.photos photo
        where photo.employee_id = p_employee_id and photo.reference = p_reference for update;
    if not found then
        return query select false;      -- HR has another photo meanwhile
        return;
    end if;
    update hikvision_sync.photos photo set etag = p_etag
        where photo.employee_id = p_employee_id;
    v_replaced := coalesce(v_before <> p_etag, exists (
        select from hikvision_sync.pairs pair
        where pair.employee_id = p_employee_id and pair.photo is not null
          and pair.recorded_at < p_changed_at));
    if v_replaced then
        perform from hikvision_sync.pairs pair where pair.employee_id = p_employee_id
            order by pair.terminal_id for update;
        update hikvision_sync.pairs pair set photo = 'replaced'
            where pair.employee_id = p_employee_id and pair.photo is not null;
        insert into hikvision_sync.edits (employee_id) values (p_employee_id);
    end if;
    return query select v_replaced;
end $$;

insert into hikvision_sync.files (name, version) values ('0006_verification', 2)
    on conflict (name) do update set version = excluded.version;

select hikvision_sync.grant_to_service_role();

notify pgrst, 'reload schema';

commit;
