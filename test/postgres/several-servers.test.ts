/** One task: where the file leaves open who the primary is, the engine works at the one real server that is, or says why at none. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseConfig } from '../../src/config/load.js';
import type { Config } from '../../src/config/config.js';
import { startStandby, type Cluster } from '../../src/dev/embedded-postgres.js';
import { Directory } from '../../src/fleet/directory.js';
import { connect } from '../../src/postgres/connection.js';
import { engineEndpoint } from '../../src/postgres/endpoint.js';
import { useClusters } from '../support/clusters.js';

const clusters = useClusters({ primary: { major: 17 } });
let standby: Cluster;

beforeAll(async () => {
  standby = await startStandby(clusters.primary, 'standby');
});

afterAll(() => standby.remove());

function configOf(servers: readonly { readonly host: string; readonly port: number }[]): Config {
  const rows = servers.map(
    ({ host, port }) =>
      `[[databases]]\nname = "prod"\nhost = "${host}"\nport = ${port.toString()}\nrole = "auto"\ndatabase_name = "postgres"\n`,
  );
  const { password } = clusters.primary;
  const users = `[[users]]\nname = "postgres"\npassword = "${password}"\ndatabase = "prod"\nschema_admin = true\n`;
  const text = `[general]\nlsn_check_delay = 0\n${rows.join('')}`;
  return parseConfig({ file: 'pgdog.toml', text }, { file: 'users.toml', text: users }, { environment: {} });
}

async function portOf(config: Config): Promise<unknown> {
  const connection = await connect(engineEndpoint(config, 'prod'));
  try {
    const { rows } = await connection.query<{ port: string }>(`SELECT current_setting('port') AS port`);
    return Number(rows[0]?.port);
  } finally {
    await connection.end();
  }
}

test('it connects to the server that is not in recovery, in whatever order the rows are, and to none where two are not', async () => {
  const { primary } = clusters;
  const config = configOf([standby, primary]);
  expect(await portOf(config)).toBe(primary.port);
  expect(await portOf(configOf([primary, standby]))).toBe(primary.port);
  const side = await new Directory(() => config).sideOf('prod');
  expect(await new Directory(() => configOf([primary, standby])).sideOf('prod')).toStrictEqual(side);

  await standby.query('postgres', 'SELECT pg_promote(true, 60)');
  await expect(portOf(config)).rejects.toMatchObject({
    code: 'primary_unknown',
    message: expect.stringMatching(/:\d+\/postgres and .*:\d+\/postgres both say that they are the primary/) as string,
  });
  await expect(new Directory(() => config).sideOf('prod')).rejects.toMatchObject({ code: 'database_unreachable' });

  await primary.stop();
  expect(await portOf(config)).toBe(standby.port);
  await standby.stop();
  await expect(portOf(config)).rejects.toMatchObject({
    code: 'primary_unknown',
    message: expect.stringContaining('ECONNREFUSED') as string,
  });
});
