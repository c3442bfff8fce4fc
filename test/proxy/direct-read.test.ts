/** One task: bytes that a server's next read would overwrite are whole when they are read later. */
import { expect, test } from 'vitest';
import { query } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { configFor, proxyFor, RawClient } from './support.js';

const clusters = useClusters({ main: { major: 18 } });
/** Less than makes the proxy wait for its client: what the sockets no longer take stays with it, and the server goes to the next. */
const TEXT_BYTES = 12_000;
/** More than all sockets in between hold. */
const TURNS_MAX = 4_000;
/** So far behind, the late one is not served any more. */
const BEHIND_MAX = 10;
/** Behind type, length, count of values and the value's length. */
const VALUE_AT = 11;

/** One letter per turn, so that no two answers in a row are alike. */
function letter(turn: number): string {
  return String.fromCharCode('a'.charCodeAt(0) + (turn % 26));
}

test('a client that reads late reads what was sent, though its server was read into the same buffer for another one', async () => {
  const databaseName = await freshDatabase(clusters.main);
  const config = configFor([{ name: 'prod', cluster: clusters.main, databaseName }], {
    general: { defaultPoolSize: 1 },
  });
  const proxy = await proxyFor({ config });
  const late = await RawClient.loggedIn(proxy, 'prod', { application_name: 'late' });
  const other = await RawClient.loggedIn(proxy, 'prod');
  late.socket.pause();
  const answered = (): number => proxy.clients().find(({ port }) => port === late.socket.localPort)?.queries ?? 0;
  let turns = 0;
  while (turns < TURNS_MAX && turns - answered() < BEHIND_MAX) {
    late.send(query(`SELECT repeat('${letter(turns)}', ${TEXT_BYTES.toString()})`));
    turns += 1;
    other.send(query(`SELECT repeat('#', ${TEXT_BYTES.toString()})`));
    await other.until('Z');
  }
  late.socket.resume();
  const rows = (await late.until('Z', turns)).filter(({ type }) => type === 'D');
  expect(rows).toHaveLength(turns);
  const wrong = rows.findIndex(({ bytes }, at) => bytes.toString('latin1', VALUE_AT) !== letter(at).repeat(TEXT_BYTES));
  expect(wrong).toBe(-1);
});
