/** One task: the shape of what is configured about replicas. */

type LoadBalancing = 'random' | 'round_robin' | 'least_active_connections' | 'weighted_round_robin';
/** Whether the primary answers reads beside its replicas. */
type ReadSplit = 'include_primary' | 'exclude_primary' | 'include_primary_if_replica_banned' | 'prefer_primary';

/** How servers are asked which role they have and how far they are. */
export interface LsnCheckConfig {
  /** from the start of a server's pool to the first question; null: nobody is asked */
  readonly delayMs: number | null;
  readonly intervalMs: number;
  readonly timeoutMs: number;
}

/** How the reads of a database with replicas are spread. */
export interface ReplicaConfig {
  readonly strategy: LoadBalancing;
  readonly split: ReadSplit;
  /** `aggressive`: the first statement of a transaction decides where all of it runs */
  readonly transactions: 'conservative' | 'aggressive';
  /** how long a replica that could not be reached gets no reads */
  readonly banTimeoutMs: number;
  readonly lsnCheck: LsnCheckConfig;
  /** a replica that is further behind gets no reads; null: it may be as far behind as it likes */
  readonly banLagMs: number | null;
  readonly banLagBytes: number | null;
}
