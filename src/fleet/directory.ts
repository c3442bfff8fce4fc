/** One task: find the configured database that a side of a migration is, whatever name it has today. */
import type { Config } from '../config/config.js';
import { shardCount } from '../config/databases.js';
import { sameSide, sideKey, type Side } from '../cutover/side.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { withConnection } from '../postgres/connection.js';
import { addressOf, engineEndpoint, type Endpoint } from '../postgres/endpoint.js';
import { readIdentity } from '../postgres/record.js';

const CONNECT_TIMEOUT_MS = 3_000;

export class Directory {
  readonly #config: () => Config;
  /** side by server address; checked again by every answer of the record, so a stale entry is noticed */
  readonly #sides = new Map<string, Side>();

  constructor(config: () => Config) {
    this.#config = config;
  }

  /** Names the engine can reach: those with one shard and a schema_admin. */
  get names(): readonly string[] {
    const config = this.#config();
    const names = [...new Set(config.databases.map((d) => d.name))];
    return names.filter(
      (name) =>
        shardCount(config.databases, name) === 1 && config.users.some((u) => u.database === name && u.schemaAdmin),
    );
  }

  endpoint(name: string): Endpoint {
    return engineEndpoint(this.#config(), name);
  }

  /** @throws CutoverError `sharded_not_moved`, and `database_unreachable` without any credentials in it */
  async sideOf(name: string): Promise<Side> {
    this.#expectOneShard(name);
    const endpoint = this.endpoint(name);
    const known = this.#sides.get(addressOf(endpoint));
    if (known) return known;
    try {
      const { systemIdentifier, databaseOid } = await withConnection(endpoint, readIdentity, {
        connectTimeoutMs: CONNECT_TIMEOUT_MS,
      });
      const side = { systemIdentifier, databaseOid };
      this.#sides.set(addressOf(endpoint), side);
      return side;
    } catch (error) {
      throw new CutoverError('database_unreachable', {
        database: name,
        address: addressOf(endpoint),
        problem: messageOf(error),
      });
    }
  }

  #expectOneShard(name: string): void {
    const shards = shardCount(this.#config().databases, name);
    if (shards > 1) throw new CutoverError('sharded_not_moved', { database: name, shards });
  }

  /** The side the server of `name` is known to be in `config`, without asking it. */
  knownSide(name: string, config: Config = this.#config()): Side | null {
    if (!config.databases.some((d) => d.name === name && d.shard === 0)) return null;
    return this.#sides.get(addressOf(engineEndpoint(config, name))) ?? null;
  }

  /** Takes over what another directory has learnt. */
  adopt(other: Directory): void {
    for (const [address, side] of other.#sides) this.#sides.set(address, side);
  }

  /**
   * The name of a side today. Looks into memory first, in one go: a swap between two awaits would give the answer of neither
   * before nor after.
   *
   * @throws CutoverError `side_unknown` when no configured database is that side
   */
  async nameOf(side: Side): Promise<string> {
    const known = this.#knownName(side);
    if (known !== null) return known;
    const outcomes = await Promise.allSettled(this.names.map((name) => this.sideOf(name)));
    const learnt = this.#knownName(side);
    if (learnt !== null) return learnt;
    const problems = outcomes.flatMap((o) => (o.status === 'rejected' ? [messageOf(o.reason)] : []));
    throw new CutoverError('side_unknown', { side: sideKey(side), problem: problems.join('; ') || 'none matches' });
  }

  #knownName(side: Side): string | null {
    const isSide = (name: string): boolean => {
      const known = this.knownSide(name);
      return known !== null && sameSide(known, side);
    };
    return this.names.find(isSide) ?? null;
  }

  /** Name and endpoint belong together: both are taken in the same turn. */
  async endpointOf(side: Side): Promise<Endpoint> {
    await this.nameOf(side);
    const name = this.#knownName(side);
    if (name === null)
      throw new CutoverError('side_unknown', { side: sideKey(side), problem: 'the configuration changed' });
    return this.endpoint(name);
  }

  /** Forgets what was learnt: after a reload other servers may stand at the addresses. */
  forget(): void {
    this.#sides.clear();
  }
}
