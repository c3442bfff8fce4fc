/**
 * One task: ask the servers of databases with replicas which role they have and how far they are, find the primary where the file leaves it
 * open, and ban replicas that are too far behind.
 *
 * A round asks the primary before the others, so that a replica is compared with what there was to replay. A server that does not answer in
 * time changes nothing of what is known about how far it is.
 */
import type { Config, DatabaseEntry } from '../config/config.js';
import { automaticRows, readReplicas } from '../config/replicas.js';
import { messageOf } from '../errors/errors.js';
import { Connections } from '../postgres/connections.js';
import type { Endpoint } from '../postgres/endpoint.js';
import { lagBehind, positionOf, type Lag, type Position } from '../postgres/position.js';
import type { ReplicationStatus } from './contract.js';
import type { Logger } from './logger.js';
import type { Pool } from './pool.js';
import { chosenPrimary, serverKey, withRoles, type SaidRole } from './primary-choice.js';
import type { Routes } from './routes.js';

/** What the primary said in as many rounds tells for how long a replica is behind. */
const HISTORY_MAX = 64;
/** The password of one user may be wrong, hardly those of three. */
const LOGINS_MAX = 3;

/** The servers of one database, whatever name it has today. */
interface Group {
  readonly database: string;
  readonly rows: readonly DatabaseEntry[];
  /** the file leaves open who is the primary */
  readonly open: boolean;
}

interface Known {
  /** by serverKey(); null: nobody */
  primary: string | null;
  /** what the primary said, oldest first */
  history: Position[];
  /** latest answer of each server */
  readonly latest: Map<string, { readonly position: Position; readonly lag: Lag | null }>;
  /** null: never */
  askedAtMs: number | null;
  asking: boolean;
  /** what was logged last */
  told: string;
}

/** What this needs of the proxy. */
export interface WatchContext {
  readonly config: Config;
  readonly routes: Routes;
  readonly logger: Logger;
  /** who is the primary of some servers has changed */
  rolesChanged(): void;
}

export class ReplicaWatch {
  readonly #context: WatchContext;
  readonly #known = new Map<string, Known>();
  /** of each server, how many rounds in a row it did not answer: another login may be right */
  readonly #failures = new Map<string, number>();
  #connections = new Connections();
  #timeoutMs: number | null = null;
  #groups: readonly Group[] = [];
  readonly #begunAtMs = performance.now();
  #closed = false;

  constructor(context: WatchContext) {
    this.#context = context;
  }

  /** To be called when another configuration is in force, before rolesOf(); what is known of servers that stay is kept. */
  apply(): void {
    const { config } = this.#context;
    const { delayMs, timeoutMs } = config.replicas.lsnCheck;
    const before = this.#groups.map(groupKey).toString();
    this.#groups = delayMs === null ? [] : groupsOf(config);
    if (this.#timeoutMs !== timeoutMs || before !== this.#groups.map(groupKey).toString()) {
      const limits = { connectTimeoutMs: timeoutMs, queryTimeoutMs: timeoutMs };
      void this.#connections.close();
      this.#connections = new Connections({ applicationName: 'cutover watch', ...limits });
      this.#timeoutMs = timeoutMs;
    }
    const keys = new Set(this.#groups.map(groupKey));
    for (const key of this.#known.keys()) if (!keys.has(key)) this.#known.delete(key);
  }

  /** The configuration with the roles that are known now. */
  rolesOf(config: Config): Config {
    return withRoles(config, (rows) => this.#known.get(rowsKey(rows))?.primary ?? null);
  }

  /** Begins the rounds that are due. To be called about once a second. */
  sweep(): void {
    const { delayMs, intervalMs } = this.#context.config.replicas.lsnCheck;
    const now = performance.now();
    if (delayMs === null) this.#liftAll();
    for (const group of this.#groups) {
      const known = this.#of(group);
      // Without a primary nobody can write: that is asked at once.
      const waits = !group.open && now - this.#begunAtMs < (delayMs ?? 0);
      if (known.asking || waits || (known.askedAtMs !== null && now - known.askedAtMs < intervalMs)) continue;
      known.askedAtMs = now;
      known.asking = true;
      void this.#round(group, known).finally(() => (known.asking = false));
    }
  }

  /** What the server of a pool said last; null: nobody has asked it, or it has not answered yet. */
  statusOf(pool: Pool): ReplicationStatus | null {
    const key = serverKey(pool.options.endpoint);
    const group = this.#groups.find(({ database }) => database === pool.label.database);
    const latest = group && this.#known.get(groupKey(group))?.latest.get(key);
    if (latest === undefined) return null;
    const { position, lag } = latest;
    const ageMs = performance.now() - position.askedAtMs;
    return {
      lagMs: lag?.ms ?? null,
      lagBytes: lag?.bytes ?? null,
      lsn: position.lsn,
      lsnAgeMs: ageMs,
      recovering: position.recovering,
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#groups = [];
    await this.#connections.close();
  }

  #of(group: Group): Known {
    const key = groupKey(group);
    const known = this.#known.get(key) ?? {
      ...{ primary: null, history: [], latest: new Map(), askedAtMs: null, asking: false, told: '' },
    };
    this.#known.set(key, known);
    return known;
  }

  /** Never rejects. */
  async #round(group: Group, known: Known): Promise<void> {
    const before = known.primary ?? group.rows.find(({ role }) => role !== 'replica');
    const first = typeof before === 'string' ? group.rows.find((row) => serverKey(row) === before) : before;
    const answers = new Map<string, Position | null>();
    const ask = async (row: DatabaseEntry): Promise<void> => {
      answers.set(serverKey(row), await this.#ask(row));
    };
    if (first !== undefined) await ask(first);
    await Promise.all(group.rows.filter((row) => row !== first).map(ask));
    // The names may have changed places meanwhile, or another configuration may have asked for other servers.
    const today = this.#groups.find((other) => groupKey(other) === groupKey(group));
    if (this.#closed || today === undefined || this.#known.get(groupKey(group)) !== known) return;
    this.#choose(today, known, answers);
    this.#compare(today, known, answers);
    this.#judge(today, known);
  }

  /** @returns null when there was no answer in time */
  async #ask(row: DatabaseEntry): Promise<Position | null> {
    const key = serverKey(row);
    const failures = this.#failures.get(key) ?? 0;
    const logins = this.#loginsAt(row);
    const endpoint = logins[failures % Math.max(1, logins.length)];
    if (endpoint === undefined) return null;
    const connections = this.#connections;
    try {
      const position = await positionOf(await connections.get(endpoint, 'watch'));
      this.#failures.delete(key);
      return position;
    } catch (error) {
      this.#failures.set(key, failures + 1);
      const problem = messageOf(error);
      if (failures === 0)
        this.#context.logger.warn({ server: key, problem }, 'a server does not say which role it has');
      void connections.discard(endpoint, 'watch');
      return null;
    }
  }

  /** The schema_admin's login before those of others; one that has no password is of no use. */
  #loginsAt(row: DatabaseEntry): readonly Endpoint[] {
    const { config, routes } = this.#context;
    const isAdmin = (name: string): boolean =>
      config.users.some((user) => user.name === name && user.database === row.name && user.schemaAdmin);
    const pools = routes.pools.filter(
      ({ label, options: { endpoint } }) =>
        label.database === row.name && serverKey(endpoint) === serverKey(row) && endpoint.keys === undefined,
    );
    const sorted = pools.toSorted((a, b) => Number(isAdmin(b.label.user)) - Number(isAdmin(a.label.user)));
    return sorted.slice(0, LOGINS_MAX).map(({ options }) => options.endpoint);
  }

  #choose(group: Group, known: Known, answers: ReadonlyMap<string, Position | null>): void {
    const before = known.primary;
    if (group.open) {
      const said = new Map([...answers].map(([key, position]) => [key, saidBy(position)]));
      known.primary = chosenPrimary(said, before);
      this.#tell(group, known, said);
    } else {
      const named = group.rows.find(({ role }) => role !== 'replica');
      known.primary = named === undefined ? null : serverKey(named);
    }
    if (known.primary === before) return;
    known.history = [];
    if (group.open) this.#changed(group, before);
  }

  /** Connections to the one before are not lent again: what it is now is not known. */
  #changed(group: Group, before: string | null): void {
    this.#context.rolesChanged();
    for (const pool of this.#context.routes.pools)
      if (pool.label.database === group.database && serverKey(pool.options.endpoint) === before) pool.reconnect();
  }

  /** In the log, once for each change. */
  #tell({ database }: Group, known: Known, said: ReadonlyMap<string, SaidRole>): void {
    const claims = [...said].filter(([, role]) => role === 'primary').map(([key]) => key);
    const text = JSON.stringify([known.primary, claims.length > 1 ? claims : []]);
    if (known.told === text) return;
    known.told = text;
    const { logger } = this.#context;
    const details = { database, primary: known.primary, claims };
    if (claims.length > 1) logger.error(details, 'several servers of one database say that they are its primary');
    else if (known.primary === null) logger.error(details, 'no server of this database is its primary');
    else logger.info(details, 'the primary of this database is known');
  }

  /** How far each one is. */
  #compare(group: Group, known: Known, answers: ReadonlyMap<string, Position | null>): void {
    const primary = known.primary === null ? null : (answers.get(known.primary) ?? null);
    if (primary !== null && !primary.recovering) {
      known.history.push(primary);
      if (known.history.length > HISTORY_MAX) known.history.shift();
    }
    for (const row of group.rows) {
      const key = serverKey(row);
      const position = answers.get(key) ?? null;
      if (position === null) continue;
      const lag = primary === null || key === known.primary ? null : lagBehind(known.history, position);
      known.latest.set(key, { position, lag });
    }
  }

  #judge(group: Group, known: Known): void {
    const { routes } = this.#context;
    for (const pool of routes.pools) {
      if (pool.label.database !== group.database || pool.label.role !== 'replica') continue;
      const latest = known.latest.get(serverKey(pool.options.endpoint));
      const verdict = latest === undefined ? undefined : this.#verdict(group, latest.position, latest.lag);
      if (verdict !== undefined) routes.bans.watched(pool, verdict);
    }
  }

  /** @returns why a replica gets no reads; null: it is fit, undefined: nobody can tell */
  #verdict(group: Group, position: Position, lag: Lag | null): string | null | undefined {
    if (group.open && !position.recovering)
      return 'it says that it is the primary, and is not the one of this database';
    if (lag === null) return undefined;
    const { banLagMs, banLagBytes } = this.#context.config.replicas;
    if (banLagBytes !== null && lag.bytes > banLagBytes) return `${lag.bytes.toString()} bytes behind its primary`;
    if (banLagMs !== null && lag.ms !== null && lag.ms > banLagMs)
      return `${Math.round(lag.ms).toString()} ms behind its primary`;
    return null;
  }

  /** Where nobody is asked any more, nobody would lift what was banned. */
  #liftAll(): void {
    const { routes } = this.#context;
    for (const pool of routes.pools) routes.bans.watched(pool, null);
  }
}

function groupsOf(config: Config): readonly Group[] {
  return [...new Set(config.databases.map(({ name }) => name))].flatMap((database): Group[] => {
    const open = automaticRows(config.databases, database);
    if (open.length > 0) return [{ database, rows: open, open: true }];
    const replicas = readReplicas(config.databases, database);
    const primary = config.databases.find((row) => row.name === database && row.role !== 'replica' && row.shard === 0);
    const several = config.databases.some((row) => row.name === database && row.shard > 0);
    return several || replicas.length === 0 || primary === undefined
      ? []
      : [{ database, rows: [primary, ...replicas], open: false }];
  });
}

/** The same after a swap of names. */
function rowsKey(rows: readonly DatabaseEntry[]): string {
  return JSON.stringify(rows.map((row) => `${serverKey(row)}/${row.databaseName}`));
}

function groupKey({ rows }: Group): string {
  return rowsKey(rows);
}

function saidBy(position: Position | null): SaidRole {
  if (position === null) return 'silent';
  return position.recovering ? 'standby' : 'primary';
}
