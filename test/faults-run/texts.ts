/** One task: the two configuration files of a node in a system of faults. */
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { LOOPBACK } from '../../src/dev/ports.js';
import { spreadRules } from './spread.js';

/** The source, and each shard of the destination. */
type Sides = readonly [Cluster, Cluster, ...Cluster[]];

/** More than the ledger has clients on a node. */
const POOL_SIZE = 10;

/** What of the nodes' settings a run chooses. */
export interface FaultSettings {
  readonly leaseMs: number;
  readonly pipelining: 'auto' | 'off';
}

export function configText(
  sides: Sides,
  ports: ReadonlyMap<string, number>,
  port: number,
  { leaseMs, pipelining }: FaultSettings,
): string {
  const [source, ...destination] = sides;
  const database = (name: string, cluster: Cluster, shard = 0): string => `
[[databases]]
name = "${name}"
host = "${cluster.host}"
port = ${cluster.port.toString()}
database_name = "app"
shard = ${shard.toString()}
`;
  const rules = destination.length > 1 ? spreadRules('prod_new') : '';
  const destinations = destination.map((cluster, shard) => database('prod_new', cluster, shard)).join('') + rules;
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
pipelining = "${pipelining}"

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
