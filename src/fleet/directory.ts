/** One task: find the configured database that a side of a migration, or a shard of one, is, whatever name it has today. */
import type { Config } from '../config/config.js';
import { shardCount } from '../config/databases.js';
import { sameSide, sideKey, type Side } from '../cutover/side.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import { withConnection } from '../postgres/connection.js';
import { addressOf, engineEndpoint, type Endpoint } from '../postgres/endpoint.js';
import { readIdentity } from '../postgres/record.js';

const CONNECT_TIMEOUT_MS = 3_000;

/** One server of the configuration. */
export interface Place {
  readonly name: string;
  readonly shard: number;
}

export class Directory {
  readonly #config: () => Config;
  /** side by server address; checked again by every answer of the record, so a stale entry is noticed */
  readonly #sides = new Map<string, Side>();

  constructor(config: () => Config) {
    this.#config = config;
  }

  /** Names the engine can reach: those with a schema_admin. */
  get names(): readonly string[] {
    const config = this.#config();
    const names = [...new Set(config.databases.map((d) => d.name))];
    return names.filter((name) => config.users.some((u) => u.database === name && u.schemaAdmin));
  }

  /** Each shard of each of these names. */
  get places(): readonly Place[] {
    return this.names.flatMap((name) => this.#shards(name).map((shard) => ({ name, shard })));
  }

  endpoint(name: string, shard = 0): Endpoint {
    return engineEndpoint(this.#config(), name, shard);
  }

  /** The side of a name, with all its shards. @throws CutoverError `database_unreachable` without any credentials in it */
  async sideOf(name: string): Promise<Side> {
    const [first, ...otherShards] = await Promise.all(this.#shards(name).map((shard) => this.#ask(name, shard)));
    invariant(first, 'a database has a shard 0');
    return otherShards.length === 0 ? first : { ...first, otherShards };
  }

  #shards(name: string): readonly number[] {
    return Array.from({ length: shardCount(this.#config().databases, name) }, (_, shard) => shard);
  }

  async #ask(name: string, shard: number): Promise<Side> {
    const endpoint = this.endpoint(name, shard);
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

  /** What the server of a shard of `name` is known to be in `config`, without asking it; of shard 0 alone the side is known by. */
  knownSide(name: string, config: Config = this.#config(), shard = 0): Side | null {
    if (!config.databases.some((d) => d.name === name && d.shard === shard)) return null;
    return this.#sides.get(addressOf(engineEndpoint(config, name, shard))) ?? null;
  }

  /** Takes over what another directory has learnt. */
  adopt(other: Directory): void {
    for (const [address, side] of other.#sides) this.#sides.set(address, side);
  }

  /**
   * The name of a side, or of a shard of one, today. Looks into memory first, in one go: a swap between two awaits would give the answer of neither
   * before nor after.
   *
   * @throws CutoverError `side_unknown` when no configured database is that side
   */
  async nameOf(side: Side): Promise<string> {
    const known = this.#knownPlace(side);
    if (known !== null) return known.name;
    const outcomes = await Promise.allSettled(this.places.map(({ name, shard }) => this.#ask(name, shard)));
    const learnt = this.#knownPlace(side);
    if (learnt !== null) return learnt.name;
    const problems = outcomes.flatMap((o) => (o.status === 'rejected' ? [messageOf(o.reason)] : []));
    throw new CutoverError('side_unknown', { side: sideKey(side), problem: problems.join('; ') || 'none matches' });
  }

  #knownPlace(side: Side): Place | null {
    const isSide = ({ name, shard }: Place): boolean => {
      const known = this.knownSide(name, this.#config(), shard);
      return known !== null && sameSide(known, side);
    };
    return this.places.find(isSide) ?? null;
  }

  /** Name and endpoint belong together: both are taken in the same turn. */
  async endpointOf(side: Side): Promise<Endpoint> {
    await this.nameOf(side);
    const place = this.#knownPlace(side);
    if (place === null)
      throw new CutoverError('side_unknown', { side: sideKey(side), problem: 'the configuration changed' });
    return this.endpoint(place.name, place.shard);
  }

  /** Forgets what was learnt: after a reload other servers may stand at the addresses. */
  forget(): void {
    this.#sides.clear();
  }
}
