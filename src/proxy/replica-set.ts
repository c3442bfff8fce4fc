/** One task: choose, for one user of one database, which server answers the next read: the primary or one of its replicas. */
import type { ReplicaConfig } from '../config/replica-config.js';
import type { CutoverError } from '../errors/errors.js';
import type { Bans } from './bans.js';
import type { Pool } from './pool.js';
import type { ReadTexts } from './read-texts.js';

/** Replicas stand below the coordinator in the place of a shard's number: -2, -3, … in the order of the file. */
const FIRST_REPLICA = -2;
const PRIMARY = 0;
const WEIGHT = 255;

export function replicaShard(index: number): number {
  return FIRST_REPLICA - index;
}

export function isReplica(shard: number): boolean {
  return shard <= FIRST_REPLICA;
}

export interface ReplicaMember {
  readonly pool: Pool;
  /** `lb_weight`; absent: the default */
  readonly weight: number | undefined;
}

interface Candidate {
  readonly shard: number;
  readonly pool: Pool;
  readonly weight: number;
  /** what smooth weighted round robin owes it */
  credit: number;
}

export class ReplicaSet {
  readonly texts: ReadTexts;
  readonly #primary: Candidate;
  readonly #replicas: readonly Candidate[];
  readonly #config: ReplicaConfig;
  readonly #bans: Bans;
  #turn = 0;

  constructor(
    primary: ReplicaMember,
    replicas: readonly ReplicaMember[],
    config: ReplicaConfig,
    shared: { readonly bans: Bans; readonly texts: ReadTexts },
  ) {
    this.#primary = candidate(primary, PRIMARY);
    this.#replicas = replicas.map((member, index) => candidate(member, replicaShard(index)));
    this.#config = config;
    this.#bans = shared.bans;
    this.texts = shared.texts;
  }

  get size(): number {
    return this.#replicas.length;
  }

  /** Reads go to the primary unless a client asks for a replica. */
  get prefersPrimary(): boolean {
    return this.#config.split === 'prefer_primary';
  }

  get aggressive(): boolean {
    return this.#config.transactions === 'aggressive';
  }

  /**
   * Where the next read runs, in the place of a shard's number. The primary where no replica may be asked.
   *
   * @param onlyReplicas the primary is no candidate as long as a replica is
   */
  choose(onlyReplicas: boolean): number {
    const fit = this.#replicas.filter(({ pool }) => !this.#bans.has(pool));
    const { split } = this.#config;
    const helps = split === 'include_primary_if_replica_banned' && fit.length < this.#replicas.length;
    const serves = this.#primary.pool.options.access !== 'nobody';
    if (!onlyReplicas && serves && (split === 'include_primary' || helps)) fit.unshift(this.#primary);
    return fit.length === 0 ? PRIMARY : this.#balanced(fit).shard;
  }

  /** A replica did not give a connection: it gets no reads for a while. */
  failed(failed: Pool | null, error: CutoverError): void {
    if (this.#replicas.some(({ pool }) => pool === failed) && failed !== null)
      this.#bans.failed(failed, error.message, this.#config.banTimeoutMs);
  }

  #balanced(fit: readonly Candidate[]): Candidate {
    this.#turn = (this.#turn + 1) % Number.MAX_SAFE_INTEGER;
    const inTurn = (all: readonly Candidate[]): Candidate => all[this.#turn % all.length] ?? this.#primary;
    switch (this.#config.strategy) {
      case 'random':
        return fit[Math.floor(Math.random() * fit.length)] ?? this.#primary;
      case 'round_robin':
        return inTurn(fit);
      case 'least_active_connections': {
        const least = Math.min(...fit.map(({ pool }) => activeIn(pool)));
        return inTurn(fit.filter(({ pool }) => activeIn(pool) === least));
      }
      case 'weighted_round_robin':
        return weighted(fit) ?? inTurn(fit);
    }
  }
}

function candidate({ pool, weight = WEIGHT }: ReplicaMember, shard: number): Candidate {
  return { shard, pool, weight, credit: 0 };
}

function activeIn(pool: Pool): number {
  return pool.serverCount - pool.idleCount + pool.waitingCount;
}

/** Smooth weighted round robin: each earns its weight a turn, and the richest pays for all. Null where nobody has a weight. */
function weighted(fit: readonly Candidate[]): Candidate | null {
  const sharing = fit.filter(({ weight }) => weight > 0);
  for (const each of sharing) each.credit += each.weight;
  const [first, ...others] = sharing;
  if (first === undefined) return null;
  const richest = others.reduce((best, each) => (each.credit > best.credit ? each : best), first);
  richest.credit -= sharing.reduce((sum, { weight }) => sum + weight, 0);
  return richest;
}
