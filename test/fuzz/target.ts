/**
 * One task: load the built proxy anew from a copy whose sockets are in memory, with a fault planted in it where one is asked for.
 *
 * The copy differs from what is built in the lines told here and in no other, and each of them must be found: a fault that is no
 * longer planted, or a probe that no longer counts, ends the run.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { startProxy } from '../../src/proxy/proxy.js';
import type { loadStatementParser } from '../../src/sharding/statement-parser.js';
import type { Edit } from './planted.js';

const BUILT = fileURLToPath(new URL('../..', import.meta.url));
const MEMORY_NET = new URL('./memory-net.js', import.meta.url).href;

const CERTAIN_CRYPTO = new URL('./certain-crypto.js', import.meta.url).href;
const certain = (file: string): Edit => ({ file, from: `from 'node:crypto'`, to: `from '${CERTAIN_CRYPTO}'` });

/** Sockets in memory, nothing by chance, and what coverage.ts and the look for leaks need to see. */
const EDITS: readonly Edit[] = [
  { file: 'proxy/proxy.js', from: `from 'node:net'`, to: `from '${MEMORY_NET}'` },
  { file: 'postgres/server-socket.js', from: `from 'node:net'`, to: `from '${MEMORY_NET}'` },
  ...['proxy/acceptor.js', 'proxy/client-password.js', 'proxy/credentials.js', 'proxy/scram.js'].map(certain),
  {
    file: 'proxy/server-opening.js',
    from: `import { setTimeout as sleep } from 'node:timers/promises'`,
    to: 'const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))',
  },
  {
    file: 'proxy/pipelining/read-facts.js',
    from: 'await withConnection(this.#endpoint(), readFacts, { queryTimeoutMs: READ_TIMEOUT_MS })',
    to: `{ tables: new Set(['keyed']), functions: new Set(['generate_series']), own: new Set(), ownOperators: false, keys: new Map([['keyed', new Set(['id'])]]) }`,
  },
  {
    file: 'proxy/proxy.js',
    from: 'get config() {',
    to: 'get left() { return { sessions: this.#sessions.size, sockets: this.#acceptor.sockets.size }; }\n    get config() {',
  },
  {
    file: 'proxy/client-session.js',
    from: 'received: (chunk) => {',
    to: 'received: (chunk) => { globalThis.fuzzProbe.client(this, this.#phase, this.#borrowing.step, chunk);',
  },
  {
    file: 'proxy/server-connection.js',
    from: '#frame(type, buffer, start, end) {',
    to: '#frame(type, buffer, start, end) { globalThis.fuzzProbe.server(type, this.replies.head);',
  },
  {
    file: 'proxy/client-password.js',
    from: 'const { type, bytes } = await reader.message();',
    to: 'const { type, bytes } = await reader.message(); globalThis.fuzzProbe.login(type);',
  },
  {
    file: 'proxy/client-opening.js',
    from: 'switch (packet.kind) {',
    to: 'globalThis.fuzzProbe.opening(packet.kind); switch (packet.kind) {',
  },
];

export interface Target {
  readonly startProxy: typeof startProxy;
  readonly remove: () => void;
}

/** @throws Error when a line to be changed is not there, or there twice */
export async function loadTarget(planted: readonly Edit[]): Promise<Target> {
  const folder = mkdtempSync(join(tmpdir(), 'cutover-fuzz-'));
  const remove = (): void => {
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    cpSync(join(BUILT, 'src'), join(folder, 'src'), { recursive: true });
    symlinkSync(join(BUILT, '..', 'node_modules'), join(folder, 'node_modules'));
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
    for (const edit of [...EDITS, ...planted]) apply(folder, edit);
    const proxy = (await import(urlOf(folder, 'proxy/proxy.js'))) as { readonly startProxy: typeof startProxy };
    // From a file of its own, which takes as long as it takes.
    const parser = (await import(urlOf(folder, 'sharding/statement-parser.js'))) as {
      readonly loadStatementParser: typeof loadStatementParser;
    };
    await parser.loadStatementParser();
    return { startProxy: proxy.startProxy, remove };
  } catch (error) {
    remove();
    throw error;
  }
}

function urlOf(folder: string, file: string): string {
  return pathToFileURL(join(folder, 'src', file)).href;
}

function apply(folder: string, { file, from, to }: Edit): void {
  const path = join(folder, 'src', file);
  const parts = readFileSync(path, 'utf8').split(from);
  if (parts.length !== 2) throw new Error(`${file} has ${(parts.length - 1).toString()} times: ${from}`);
  writeFileSync(path, parts.join(to));
}
