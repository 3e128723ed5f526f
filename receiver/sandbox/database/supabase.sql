-- What a Supabase project's database holds before anyone's migrations: roles, and the three
-- schemas that migrations use but do not own. A stand-in: it keeps the rights and the behaviour of
-- the real thing, not its insides. Run by the superuser on a fresh database; safe to run twice.
--
-- Sources: supabase/postgres init scripts, supabase/vault 0.3.1, supabase/pg_net 0.20.4.

-- Roles belong to the cluster, not to the database, so another database may have made them.
do $roles$
begin
    -- Two databases prepared at once would otherwise both find a role missing.
    perform pg_advisory_xact_lock(5432001);
    if not exists (select from pg_roles where rolname = 'anon') then
        create role anon nologin noinherit;
    end if;
    if not exists (select from pg_roles where rolname = 'authenticated') then
        create role authenticated nologin noinherit;
    end if;
    if not exists (select from pg_roles where rolname = 'service_role') then
        create role service_role nologin noinherit bypassrls;
    end if;
    if not exists (select from pg_roles where rolname = 'authenticator') then
        -- PostgREST's login: it may do nothing but become one of the three.
        create role authenticator login noinherit;
        grant anon, authenticated, service_role to authenticator;
    end if;
    if not exists (select from pg_roles where rolname = 'project_owner') then
        -- What Supabase calls `postgres`: it owns what the project makes and is no superuser.
        create role project_owner login createrole createdb bypassrls nosuperuser;
        grant anon, authenticated, service_role to project_owner;
        alter role project_owner set search_path = "$user", public, extensions;
    end if;
end
$roles$;

-- Rights on a database are not copied from a template: a clone of this one needs the grant again.
do $database$
begin
    execute format('grant create, temporary on database %I to project_owner', current_database());
end
$database$;

alter schema public owner to project_owner;
grant usage on schema public to anon, authenticated, service_role;

-- Supabase's default rights, and a trap for migrations: a function that project_owner makes in
-- public may be executed by everyone who can reach the API, until it is revoked by name.
alter default privileges for role project_owner in schema public
    grant all on tables to anon, authenticated, service_role;
alter default privileges for role project_owner in schema public
    grant all on sequences to anon, authenticated, service_role;
alter default privileges for role project_owner in schema public
    grant all on functions to anon, authenticated, service_role;

----------------------------------------------------------------------------------------------------
-- extensions: pgcrypto's hmac, the real one where the server carries it.
----------------------------------------------------------------------------------------------------
create schema if not exists extensions;
grant usage on schema extensions to project_owner, anon, authenticated, service_role;

do $pgcrypto$
begin
    if exists (select from pg_available_extensions where name = 'pgcrypto') then
        create extension if not exists pgcrypto schema extensions;
        return;
    end if;

    -- RFC 2104 over the built-in sha256(), with pgcrypto's signature; only 'sha256'.
    create or replace function extensions.hmac(data bytea, key bytea, type text)
    returns bytea
    language plpgsql
    immutable strict parallel safe
    set search_path = ''
    as $hmac$
    declare
        block constant integer := 64;
        short bytea := case when length(key) > block then sha256(key) else key end;
        inner_pad bytea := decode(repeat('36', block), 'hex');
        outer_pad bytea := decode(repeat('5c', block), 'hex');
    begin
        if lower(type) <> 'sha256' then
            raise exception 'the stand-in for pgcrypto knows only sha256, not "%"', type
                using errcode = 'invalid_parameter_value';
        end if;
        for i in 0 .. length(short) - 1 loop
            inner_pad := set_byte(inner_pad, i, get_byte(short, i) # 54);
            outer_pad := set_byte(outer_pad, i, get_byte(short, i) # 92);
        end loop;
        return sha256(outer_pad || sha256(inner_pad || data));
    end
    $hmac$;
end
$pgcrypto$;

----------------------------------------------------------------------------------------------------
-- vault: the same doors as the real one, but what lies behind them is NOT encrypted.
----------------------------------------------------------------------------------------------------
create schema if not exists vault;

create table if not exists vault.secrets (
    id uuid primary key default gen_random_uuid(),
    name text,
    description text not null default '',
    secret text not null,
    key_id uuid,
    nonce bytea default decode(replace(gen_random_uuid()::text, '-', ''), 'hex'),
    created_at timestamptz not null default current_timestamp,
    updated_at timestamptz not null default current_timestamp
);
create unique index if not exists secrets_name_idx on vault.secrets (name) where name is not null;

create or replace view vault.decrypted_secrets as
select id, name, description, secret, secret as decrypted_secret,
       key_id, nonce, created_at, updated_at
from vault.secrets;

-- security definer, because project_owner may not insert into vault.secrets itself.
create or replace function vault.create_secret(
    new_secret text,
    new_name text default null,
    new_description text default '',
    new_key_id uuid default null
)
returns uuid
language sql
security definer set search_path = ''
as $$
    insert into vault.secrets (secret, name, description)
    values (new_secret, new_name, new_description)
    returning id
$$;

create or replace function vault.update_secret(
    secret_id uuid,
    new_secret text default null,
    new_name text default null,
    new_description text default null,
    new_key_id uuid default null
)
returns void
language sql
security definer set search_path = ''
as $$
    update vault.secrets
    set secret = coalesce(new_secret, secret),
        name = coalesce(new_name, name),
        description = coalesce(new_description, description),
        updated_at = now()
    where id = secret_id
$$;

revoke all on all functions in schema vault from public;
grant usage on schema vault to project_owner, service_role;
grant select, delete on vault.secrets, vault.decrypted_secrets to project_owner, service_role;
grant execute on all functions in schema vault to project_owner, service_role;

----------------------------------------------------------------------------------------------------
-- net: pg_net's queue and its http_post. pg_net.py does the work of its background worker.
----------------------------------------------------------------------------------------------------
create schema if not exists net;

create unlogged table if not exists net.http_request_queue (
    id bigserial,
    method text not null check (upper(method) in ('GET', 'POST', 'DELETE')),
    url text not null,
    headers jsonb,
    body bytea,
    timeout_milliseconds integer not null
);

create unlogged table if not exists net._http_response (
    id bigint,
    status_code integer,
    content_type text,
    headers jsonb,
    content text,
    timed_out boolean,
    error_msg text,
    created timestamptz not null default now()
);
create index if not exists _http_response_created_idx on net._http_response (created);

-- The real one sets a latch at commit; a notification reaches the worker at the same moment.
create or replace function net.wake()
returns void
language sql
as $$
    select pg_catalog.pg_notify('pg_net', '')
$$;

create or replace function net._urlencode_string(string varchar)
returns text
language sql
immutable
as $$
    select coalesce(string_agg(
        case
            when byte between 48 and 57 or byte between 65 and 90 or byte between 97 and 122
                or byte in (45, 46, 95, 126)
            then chr(byte)
            else '%' || upper(lpad(to_hex(byte), 2, '0'))
        end, '' order by i), '')
    from (
        select i, get_byte(convert_to(string, 'UTF8'), i) as byte
        from generate_series(0, octet_length(convert_to(string, 'UTF8')) - 1) as i
    ) as bytes
$$;

-- Not security definer, as in pg_net since 0.12: the caller needs rights on the queue, and has them.
create or replace function net.http_post(
    url text,
    body jsonb default '{}'::jsonb,
    params jsonb default '{}'::jsonb,
    headers jsonb default '{"Content-Type": "application/json"}'::jsonb,
    timeout_milliseconds integer default 5000
)
returns bigint
language plpgsql
as $$
declare
    content_type text := (
        select value from jsonb_each_text(headers) where lower(key) = 'content-type' limit 1
    );
    query text := (
        select string_agg(net._urlencode_string(key) || '=' || net._urlencode_string(value), '&')
        from jsonb_each_text(params)
    );
    request_id bigint;
begin
    if content_type is null then
        headers := headers || '{"Content-Type": "application/json"}'::jsonb;
    elsif content_type <> 'application/json' then
        -- Inside a trigger this aborts the transaction that was saving.
        raise exception 'Content-Type header must be "application/json"';
    end if;

    insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
    values (
        'POST',
        url || coalesce(case when strpos(url, '?') > 0 then '&' else '?' end || query, ''),
        headers,
        convert_to(body::text, 'UTF8'),
        timeout_milliseconds
    )
    returning id into request_id;

    perform net.wake();
    return request_id;
end
$$;

-- pg_net's own grants since 0.12; a project cannot take them back, not being the owner.
grant usage on schema net to public;
grant all on all sequences in schema net to public;
grant all on all tables in schema net to public;
