/** One task: give the tests of preflight two sides on real servers, and a configuration that names them. */
import { parseConfig } from '../../src/config/load.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { connect } from '../../src/postgres/connection.js';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import type { PreflightContext, PreflightSide } from '../../src/postgres/preflight/preflight.js';
import { freshDatabase } from '../support/clusters.js';

export interface Sides extends PreflightContext {
  readonly source: PreflightSide;
  readonly destination: PreflightSide;
  /** runs on the source, as superuser */
  readonly onSource: (sql: string) => Promise<unknown>;
  readonly onDestination: (sql: string) => Promise<unknown>;
  end(): Promise<void>;
}

export interface SidesOptions {
  readonly publication?: string;
  /** the role of both sides' connections; default the superuser */
  readonly user?: string;
  readonly password?: string;
  /** more rows of users.toml */
  readonly users?: string;
  /** databases made by the test; default fresh ones */
  readonly databases?: readonly [string, string];
}

/** Fresh databases on both clusters, one connection to each. The caller ends them. */
export async function sidesOf(source: Cluster, destination: Cluster, options: SidesOptions = {}): Promise<Sides> {
  const databases = options.databases ?? [await freshDatabase(source), await freshDatabase(destination)];
  const endpoint = (cluster: Cluster, database: string): Endpoint => ({
    ...cluster.endpoint(database),
    ...(options.user === undefined ? {} : { user: options.user }),
    ...(options.password === undefined ? {} : { password: options.password }),
  });
  const from = endpoint(source, databases[0]);
  const to = endpoint(destination, databases[1]);
  const context = {
    source: { name: 'prod', endpoint: from, connection: await connect(from) },
    destination: { name: 'prod_new', endpoint: to, connection: await connect(to) },
    publication: options.publication ?? null,
    config: configFor(from, to, options.users ?? ''),
  };
  return {
    ...context,
    onSource: (sql) => source.query(databases[0], sql),
    onDestination: (sql) => destination.query(databases[1], sql),
    end: async () => {
      await Promise.all([context.source.connection.end(), context.destination.connection.end()]);
    },
  };
}

function configFor(from: Endpoint, to: Endpoint, users: string): PreflightContext['config'] {
  const row = (name: string, { host, port, database }: Endpoint): string =>
    `[[databases]]\nname = "${name}"\nhost = "${host}"\nport = ${port.toString()}\ndatabase_name = "${database}"\n`;
  const admin = `[[users]]\nname = "${from.user}"\npassword = "${from.password ?? ''}"\ndatabases = ["prod"]\nschema_admin = true\n
    [[users]]\nname = "${to.user}"\npassword = "${to.password ?? ''}"\ndatabases = ["prod_new"]\nschema_admin = true\n`;
  return parseConfig(
    { file: 'pgdog.toml', text: row('prod', from) + row('prod_new', to) },
    { file: 'users.toml', text: admin + users },
    { environment: {} },
  );
}
