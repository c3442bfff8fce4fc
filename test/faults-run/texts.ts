/** One task: the two configuration files of a node in a system of faults. */
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { LOOPBACK } from '../../src/dev/ports.js';

type Sides = readonly [Cluster, Cluster];

/** More than the ledger has clients on a node. */
const POOL_SIZE = 10;

/** @param firstShard null: the destination has one shard; else its database, beside the one that has all the tables */
export function configText(
  sides: Sides,
  ports: ReadonlyMap<string, number>,
  port: number,
  leaseMs: number,
  firstShard: string | null,
): string {
  const [source, destination] = sides;
  const database = (name: string, cluster: Cluster, server = 'app', shard = 0): string => `
[[databases]]
name = "${name}"
host = "${cluster.host}"
port = ${cluster.port.toString()}
database_name = "${server}"
shard = ${shard.toString()}
`;
  const shards = (
    first: string,
  ): string => `${database('prod_new', destination, first)}${database('prod_new', destination, 'app', 1)}
[[sharded_schemas]]
database = "prod_new"
name = "public"
shard = 1
`;
  const destinations = firstShard === null ? database('prod_new', destination) : shards(firstShard);
  const node = ([name, nodePort]: readonly [string, number]): string => `
[[nodes]]
name = "${name}"
host = "${LOOPBACK}"
port = ${nodePort.toString()}
`;
  return `[general]
host = "${LOOPBACK}"
port = ${port.toString()}
default_pool_size = ${POOL_SIZE.toString()}
cutover_lease = ${leaseMs.toString()}
cutover_timeout = ${leaseMs.toString()}
cutover_save_config = true

[admin]
password = "admin secret"
${database('prod', source)}${destinations}${[...ports].map(node).join('')}`;
}

export function usersText(sides: Sides): string {
  const row = (database: string, cluster: Cluster): string => `
[[users]]
name = "app"
database = "${database}"
password = "app secret"
server_user = "postgres"
server_password = "${cluster.password}"
schema_admin = true
`;
  return row('prod', sides[0]) + row('prod_new', sides[1]);
}
