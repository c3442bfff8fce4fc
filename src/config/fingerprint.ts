/** One task: one short text that is equal for two nodes exactly when they would route alike. */
import { createHash } from 'node:crypto';
import type { Config } from './config.js';
import type { TlsConfig } from './tls.js';

/** Left out: secrets, and what differs between nodes that serve the same databases. */
const OMITTED = new Set([
  'password',
  'passwords',
  'passwordHash',
  'serverPassword',
  'passwordConfigured',
  'files',
  'warnings',
]);

/** A configuration is replaced, never changed: each is hashed once, however often its node is asked for its state. */
const known = new WeakMap<Config, string>();

/**
 * A hash of the configuration without passwords, without the addresses it listens at and what it logs. It does not depend on the order of keys
 * or rows, so a node that swapped in memory equals one that read the swapped files.
 */
export function fingerprint(config: Config): string {
  const before = known.get(config);
  if (before !== undefined) return before;
  const hash = hashOf(config);
  known.set(config, hash);
  return hash;
}

function hashOf(config: Config): string {
  const { logging: _logging, monitoring: _monitoring, ...shared } = config;
  const { host: _host, port: _port, ...general } = config.general;
  const text = canonical({
    ...shared,
    general,
    tls: policyOf(config.tls),
    databases: config.databases.map(canonical).sort(),
    users: config.users.map(canonical).sort(),
  });
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/**
 * What TLS forbids, and by whom servers are verified. A node's own certificates and the paths of files are its own affair: they are
 * renewed machine by machine, and that must not stand in the way of a cutover.
 */
function policyOf({ clients, servers }: TlsConfig): unknown {
  return {
    clients: clients && { required: clients.required, authority: clients.authority?.pem },
    servers: { verify: servers.verify, authority: servers.authority?.pem },
  };
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (key, inner: unknown) => {
    if (OMITTED.has(key)) return undefined;
    if (typeof inner === 'bigint') return inner.toString();
    if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) return inner;
    return Object.fromEntries(Object.entries(inner).sort(([x], [y]) => (x < y ? -1 : 1)));
  });
}
