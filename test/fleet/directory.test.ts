/** One task: the engine keeps its hands off databases with several shards: no move can begin with one. */
import { expect, test } from 'vitest';
import { parseConfig } from '../../src/config/load.js';
import { Directory } from '../../src/fleet/directory.js';

const CONFIG = `
[[databases]]
name = "prod"
host = "127.0.0.1"
port = 1
[[databases]]
name = "sharded"
host = "127.0.0.1"
port = 1
[[databases]]
name = "sharded"
host = "127.0.0.1"
port = 2
shard = 1
`;
const USERS = `
[[users]]
name = "app"
password = "secret"
databases = ["prod", "sharded"]
schema_admin = true
`;

const config = parseConfig(
  { file: 'pgdog.toml', text: CONFIG },
  { file: 'users.toml', text: USERS },
  { environment: {} },
);
const directory = new Directory(() => config);

test('a sharded database is none of those the engine reaches', () => {
  expect(directory.names).toEqual(['prod']);
});

test('it is no side of a move, and nobody is asked before that is said', async () => {
  await expect(directory.sideOf('sharded')).rejects.toMatchObject({
    code: 'sharded_not_moved',
    message: 'database "sharded" has 2 shards; moves of sharded databases are not implemented',
  });
  await expect(directory.sideOf('prod')).rejects.toMatchObject({ code: 'database_unreachable' });
});
