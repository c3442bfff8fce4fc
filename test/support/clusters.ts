/** One task: give a test file PostgreSQL clusters of its own that end with it. */
import { afterAll, beforeAll } from 'vitest';
import { startCluster, type Cluster, type ClusterOptions } from '../../src/dev/embedded-postgres.js';
import { invariant } from '../../src/errors/invariant.js';

let databases = 0;

/**
 * Starts the named clusters before the tests of the file (or of the `describe`) and removes them after.
 *
 * ```ts
 * const clusters = useClusters({ source: { major: 17 }, destination: { major: 18 } });
 * test('…', async () => { await clusters.source.query('postgres', 'SELECT 1'); });
 * ```
 */
export function useClusters<Name extends string>(
  options: Readonly<Record<Name, ClusterOptions>>,
): Readonly<Record<Name, Cluster>> {
  const started = new Map<string, Cluster>();
  beforeAll(async () => {
    const names = Object.keys(options) as Name[];
    await Promise.all(names.map(async (name) => started.set(name, await startCluster(options[name]))));
  });
  afterAll(async () => {
    await Promise.all([...started.values()].map((cluster) => cluster.remove()));
  });
  const clusters = {} as Record<Name, Cluster>;
  for (const name of Object.keys(options) as Name[]) {
    Object.defineProperty(clusters, name, { enumerable: true, get: () => clusterNamed(started, name) });
  }
  return clusters;
}

/** Makes an empty database with a name no other test of this process uses, and gives that name. */
export async function freshDatabase(cluster: Cluster, prefix = 'test'): Promise<string> {
  databases += 1;
  const name = `${prefix}_${process.pid.toString()}_${databases.toString()}`;
  await cluster.createDatabase(name);
  return name;
}

function clusterNamed(started: ReadonlyMap<string, Cluster>, name: string): Cluster {
  const cluster = started.get(name);
  invariant(cluster, `cluster "${name}" is used before beforeAll has started it`);
  return cluster;
}
