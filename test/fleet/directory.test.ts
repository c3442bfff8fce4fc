/** One task: a directory tells the sides of configured databases apart, with all their shards, and fails by name. */
import { expect, test } from 'vitest';
import { parseConfig } from '../../src/config/load.js';
import { Directory } from '../../src/fleet/directory.js';
import { useClusters } from '../support/clusters.js';

const clusters = useClusters({ one: { major: 18 }, other: { major: 18 } });

function directoryOf(
  rows: readonly { name: string; host: string; port: number; shard?: number; database?: string }[],
): Directory {
  const databases = rows.map(
    ({ name, host, port, shard = 0, database = 'postgres' }) =>
      `[[databases]]\nname = "${name}"\nhost = "${host}"\nport = ${port.toString()}\nshard = ${shard.toString()}\ndatabase_name = "${database}"\n`,
  );
  const users = `[[users]]\nname = "postgres"\npassword = "secret"\ndatabases = ["prod", "sharded"]\nschema_admin = true\n`;
  const config = parseConfig(
    { file: 'pgdog.toml', text: databases.join('') },
    { file: 'users.toml', text: users },
    { environment: {} },
  );
  return new Directory(() => config);
}

const at = (
  name: string,
  { host, port }: { host: string; port: number },
): { name: string; host: string; port: number } => ({
  name,
  host,
  port,
});

test('a side has all of its shards, and each of them is found again', async () => {
  const { one, other } = clusters;
  await other.createDatabase('second');
  const directory = directoryOf([
    at('prod', one),
    at('sharded', other),
    { ...at('sharded', other), shard: 1, database: 'second' },
  ]);
  expect(directory.names).toEqual(['prod', 'sharded']);
  const side = await directory.sideOf('sharded');
  const [second] = side.otherShards ?? [];
  expect(side.otherShards).toHaveLength(1);
  expect(second).toMatchObject({ systemIdentifier: side.systemIdentifier });
  expect(second?.databaseOid).not.toBe(side.databaseOid);
  expect(await directory.endpointOf(side)).toMatchObject({ port: other.port, database: 'postgres' });
  if (second) expect(await directory.endpointOf(second)).toMatchObject({ port: other.port, database: 'second' });
  expect(await directory.sideOf('prod')).not.toHaveProperty('otherShards');
});

test('a shard that does not answer is named', async () => {
  const directory = directoryOf([
    at('sharded', clusters.other),
    { name: 'sharded', host: '127.0.0.1', port: 1, shard: 1 },
  ]);
  await expect(directory.sideOf('sharded')).rejects.toMatchObject({ code: 'database_unreachable' });
});
