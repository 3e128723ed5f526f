-- What `receiver check` asks the database. Needs 0001 and 0002. Safe to run twice.

begin;

-- Name everything that keeps edits from becoming webhooks.
-- Promise: one row per thing checked; fault is null where it is well, otherwise words that say
-- what to do. Returns no secret. The row `webhook_secret` carries in detail a signature over
-- `receiver-check.0.{}`, so that the receiver can tell whether its secret is the Vault's; with
-- its timestamp of 1970 that signature opens nothing.
create or replace function public.hikvision_sync_check()
returns table (name text, fault text, detail text)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare
    v_url text;
    v_secret text;
    v_count bigint;
begin
    return query select 'pg_net', case
        when to_regprocedure('net.http_post(text,jsonb,jsonb,jsonb,integer)') is null
        then 'pg_net is not installed: enable it under Database > Extensions' end, null::text;
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
        end, null::text;
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
        then 'only ' || v_count || ' of 8 triggers are there and enabled: run sql/0002_triggers.sql'
        end, null::text;
    select count(*) into v_count from public.dispozitive_pontaj d where d.status = 'activ';
    return query select 'terminals', case when v_count = 0
        then 'dispozitive_pontaj has no row with status activ' end, v_count::text;
end $$;

revoke all on function public.hikvision_sync_check() from public, anon, authenticated;
grant execute on function public.hikvision_sync_check() to service_role;

notify pgrst, 'reload schema';

commit;
