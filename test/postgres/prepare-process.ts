/** One task: prepare replica identities in a process of its own, so that a test can kill it: `<endpoint> <migration> <identities>`, as JSON. */
import { withConnection } from '../../src/postgres/connection.js';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import { prepareIdentities, type PreparedIdentity } from '../../src/postgres/prepared-identity.js';

const [endpoint = '', migration = '', identities = ''] = process.argv.slice(-3);
await withConnection(
  JSON.parse(endpoint) as Endpoint,
  (connection) => prepareIdentities(connection, migration, JSON.parse(identities) as readonly PreparedIdentity[]),
  { queryTimeoutMs: 60_000 },
);
