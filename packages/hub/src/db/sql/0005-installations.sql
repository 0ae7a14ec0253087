-- Who an installation is, and what it is ordered to run.
--
-- No secret stands here: of a secret for enrolling and of a session only the digest, of a key pair only the public half. An
-- order proves itself by its signature.

-- Secrets that let one installation enrol, each once. "installation" null: one that never reported so far.
create table enrolment (
  id         bigserial primary key,
  installation text collate "C",
  secret     bytea not null unique check (octet_length(secret) = 32),
  note       text not null,
  created_by text not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  used_at    timestamptz,
  used_by    text collate "C"
);

-- Installations that enrolled. "counter" and "link": where the chain of their sessions stands; "epoch": the one of the log of
-- releases in which that was last agreed.
create table installation_key (
  installation text collate "C" primary key,
  public       text not null check (public ~ '^[0-9a-f]{64}$'),
  enrolled_at  timestamptz not null default now(),
  epoch        integer not null,
  counter      bigint not null default 0,
  link         text not null check (link ~ '^[0-9a-f]{64}$'),
  session_at   timestamptz
);

create table installation_session (
  token        bytea primary key check (octet_length(token) = 32),
  installation text collate "C" not null references installation_key on delete cascade,
  expires_at   timestamptz not null
);
create index installation_session_of on installation_session (installation);

-- What somebody should look at: one row for each kind and subject, however often it happens.
create table installation_alarm (
  kind     text not null,
  subject  text collate "C" not null,
  detail   text not null,
  count    bigint not null default 1,
  first_at timestamptz not null default now(),
  last_at  timestamptz not null default now(),
  primary key (kind, subject)
);

-- The order in force for an installation, and the permit that goes with it. "revision" null: the newest.
create table installation_order (
  installation text collate "C" primary key,
  counter      bigint not null check (counter > 0),
  revision     bigint,
  document     text not null,
  permit       text,
  actor        text not null,
  created_at   timestamptz not null default now(),
  expires_at   timestamptz not null
);

-- The log of releases as the installation was shown it, with its last report.
alter table installation add column release_log jsonb;
