-- Signed metadata (TUF), the log of releases, and what waits for a signature that no hub can make.
--
-- Nothing an installation acts upon is believed because it stands here: all of it proves itself by signatures. So the
-- secrets are not in the database, and whoever changes these rows can stop updates but not make one.

-- Documents as the bytes that were signed. Of the timestamp only the newest is kept.
create table trust_document (
  role       text collate "C" not null check (role in ('root', 'targets', 'snapshot', 'timestamp')),
  version    bigint not null check (version > 0),
  bytes      bytea not null,
  expires_at timestamptz not null,
  created_at timestamptz not null default now(),
  primary key (role, version)
);

-- The log of releases: each head is a digest over all entries up to it.
create table trust_release (
  epoch      integer not null,
  index      bigint not null check (index > 0),
  revision   bigint not null,
  digest     bytea not null check (octet_length(digest) = 32),
  head       bytea not null check (octet_length(head) = 32),
  created_at timestamptz not null default now(),
  primary key (epoch, index)
);

-- The one computed revision that waits for release keys which are kept elsewhere. "bytes": its targets metadata, with
-- the signatures that came so far. "contents": what the signer must be able to read meanwhile.
create table trust_awaiting (
  one        boolean primary key default true check (one),
  revision   bigint not null,
  digest     bytea not null,
  version    bigint not null,
  bytes      bytea not null,
  contents   bytea[] not null,
  created_at timestamptz not null default now()
);
