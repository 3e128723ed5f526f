-- The tables of the ledger: what each terminal still has to be told, and which receiver tells it.
--
-- All of it lives in the private schema hikvision_sync, which no API role can see. The receiver
-- uses it through the functions public.hikvision_sync_<verb> alone, and only service_role may call
-- those. Run as Supabase's `postgres` (not a superuser). Safe to run again.
--
-- The path of an edit:
--   edits  --(claim spreads them over the active terminals)-->  pairs  --(record)-->  done
--
-- HR's saves lock edits, posts and terminals, in the order of HR's writes. A transaction that
-- locked two of them could deadlock with a save, so each transaction here locks one at most. It
-- gives up after waiting for 2 s, because all later saves wait behind it: then run the file again.
-- A limit below deadlock_timeout (1 s) would also give up when an autovacuum holds the lock,
-- because an autovacuum yields only then.

begin;
set local lock_timeout = '2s';

create schema if not exists hikvision_sync;
revoke all on schema hikvision_sync from public;

-- Edits that are not yet spread over the terminals: HR edited an employee, or a terminal has to be
-- filled with everybody. The triggers only insert here.
-- Promise: an edit that HR committed has a row here until claim has turned it into wanted pairs, in
-- one transaction. Since the triggers only insert, HR's transaction waits for no lock of ours,
-- cannot deadlock with another edit, and pays for one row however many terminals there are.
create table if not exists hikvision_sync.edits (
    id          bigint generated always as identity primary key,
    employee_id uuid,                   -- angajati.id; no foreign key: deleted ones count too
    edited_at   timestamptz not null default clock_timestamp(),
    terminal_id uuid                    -- dispozitive_pontaj.id, where employee_id is null: a fill
);

-- Which of pg_net's requests are webhooks of ours: pg_net serves the whole project, and its answers
-- do not say to whom a request went. Only `receiver check` reads this table.
-- Promise: it is unlogged, as pg_net's own tables are. A crash empties those and lets their ids
-- begin again at 1, so it must empty this table too. The triggers only insert here; spread_edits
-- deletes what pg_net has forgotten.
create unlogged table if not exists hikvision_sync.posts (
    request_ids bigint[] not null,
    posted_at   timestamptz not null default clock_timestamp()
);

-- One row for each pair (employee, terminal) that was ever wanted.
-- Promise: a pair with wanted > done still has to be brought to its terminal. Each edit adds one to
-- wanted. record sets done to the version that was claimed, so a pair that is edited while it is
-- pushed stays wanted.
create table if not exists hikvision_sync.pairs (
    terminal_id     uuid not null,      -- dispozitive_pontaj.id
    employee_id     uuid not null,      -- angajati.id
    wanted          bigint not null default 1,
    done            bigint not null default 0,
    wanted_since    timestamptz not null default clock_timestamp(), -- the oldest edit not yet done
    attempts        integer not null default 0,   -- failed ones since the last edit
    next_attempt_at timestamptz not null default clock_timestamp(),
    status          text check (status in ('success', 'partial', 'skipped', 'fatal')),
    step            text,               -- where the last attempt ended
    message         text,               -- why, in words for a person; no secrets, no URLs
    recorded_at     timestamptz,
    employee_no     text,               -- the number under which the terminal holds the person
    photo           text,               -- fingerprint of the photo that the terminal holds
    leaves          boolean not null default false, -- the terminal held the person when HR last
                                                    -- said that the person may not pass any more
    primary key (terminal_id, employee_id),
    check (done <= wanted)
);

-- One row for each terminal: its lease and its rest.
-- Promise: at most one receiver holds a terminal. fence grows by one with each lease, and the
-- holder must show it with every later call: a caller that shows an old fence is told so and
-- changes nothing. A lease that ran out is still its holder's until another receiver takes it.
create table if not exists hikvision_sync.terminals (
    terminal_id  uuid primary key,      -- dispozitive_pontaj.id
    fence        bigint not null default 0,
    leased_by    text,                  -- null: free
    leased_at    timestamptz,
    leased_until timestamptz,
    free_at      timestamptz not null default '-infinity', -- the pause after the last call ends
    last_held_by text,                  -- its own gate keeps that pause; others wait for free_at
    failures     integer not null default 0,  -- attempts in a row without a useful answer
    rests_until  timestamptz,           -- null: it does not rest
    rest_reason  text,
    login_refused boolean not null default false, -- why it rests: one more try may lock the account
    changed_at   timestamptz,           -- when its row in dispozitive_pontaj last changed
    device       jsonb,                 -- what is known of the hardware and firmware behind the row
    looked_at    timestamptz,           -- when it last said which hardware it is
    replaced_at_fence bigint,           -- under which lease it was last found to be another one
    rest_kind    text                   -- rest_reason in one of few words, which are counted
);

commit;

-- Upgrades. `create table if not exists` leaves a table that an earlier version made as it is. Here
-- such a table gets the columns that it lacks; the indexes follow, because they need the columns.

begin;
set local lock_timeout = '2s';

alter table hikvision_sync.edits alter column employee_id drop not null;
alter table hikvision_sync.edits add column if not exists terminal_id uuid;

commit;

begin;
set local lock_timeout = '2s';

create index if not exists posts_when on hikvision_sync.posts (posted_at);

commit;

begin;
set local lock_timeout = '2s';

alter table hikvision_sync.pairs add column if not exists leaves boolean not null default false;

-- record and intend look for the person who has a number.
create index if not exists pairs_number
    on hikvision_sync.pairs (terminal_id, employee_no) where employee_no is not null;

-- claim looks for the wanted pairs of one terminal, leavers first, then those that never failed.
create index if not exists pairs_turn
    on hikvision_sync.pairs (terminal_id, leaves desc, attempts, wanted_since) where wanted > done;
drop index if exists hikvision_sync.pairs_wanted;   -- an earlier version's, without leavers

-- claim asks each terminal whether a pair is due, and a leaver's, however many others wait there.
create index if not exists pairs_due
    on hikvision_sync.pairs (terminal_id, leaves, next_attempt_at) where wanted > done;

-- The status and its page of failures look for the pairs that failed.
create index if not exists pairs_failed
    on hikvision_sync.pairs (terminal_id, employee_id) where status <> 'success';

commit;

begin;
set local lock_timeout = '2s';

alter table hikvision_sync.terminals
    add column if not exists last_held_by text,
    add column if not exists login_refused boolean not null default false,
    add column if not exists device jsonb,
    add column if not exists looked_at timestamptz,
    add column if not exists replaced_at_fence bigint,
    add column if not exists rest_kind text;

commit;
