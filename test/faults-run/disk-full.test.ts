/** One task: a node whose disk is full when the swapped configuration is to be saved serves the decided side all the same. */
import { execFileSync } from 'node:child_process';
import { appendFileSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { withConnection } from '../../src/postgres/connection.js';
import { messageOf } from '../../src/errors/errors.js';
import { until } from '../support/wait.js';
import { acceptingSides, contents } from './checks.js';
import { Load } from './load.js';
import { FaultSystem } from './system.js';

const LEASE_MS = 2_000;
const DISK_BYTES = 64 * 1024;
const FULL = 'b';

const mounted: string[] = [];
let started: FaultSystem | null = null;

afterAll(async () => {
  for (const process of started?.processes ?? []) await process.kill();
  for (const folder of mounted) execFileSync('umount', [folder]);
  await started?.stop();
});

/** A disk of its own, so small that it is full soon; needs root. */
function mountSmallDisk(folder: string): void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES.toString()}`, 'tmpfs', folder], { stdio: 'pipe' });
  mounted.push(folder);
}

/** Skips the test where nobody may mount: not root, or a container without the right. */
async function startWithSmallDisk(skip: (reason: string) => never): Promise<FaultSystem> {
  try {
    started = await FaultSystem.start('apart', LEASE_MS, {
      prepareFolder: (name, folder) => {
        if (name === FULL) mountSmallDisk(folder);
      },
    });
    return started;
  } catch (error) {
    if (mounted.length > 0) throw error;
    return skip(`a small disk could not be mounted: ${messageOf(error)}`);
  }
}

/** Writes until nothing more fits. */
function fill(file: string): void {
  const piece = Buffer.alloc(512);
  for (let written = 0; written <= DISK_BYTES; written += piece.length) {
    try {
      appendFileSync(file, piece);
    } catch (error) {
      expect((error as { code?: string }).code).toBe('ENOSPC');
      return;
    }
  }
  throw new Error('the disk is not full');
}

async function majorBehind(system: FaultSystem, node: string): Promise<number> {
  const endpoint = system.endpointOf(node);
  const sql = `SELECT current_setting('server_version_num')::int / 10000 AS major`;
  return withConnection(endpoint, async (client) => (await client.query<{ major: number }>(sql)).rows[0]?.major ?? 0);
}

async function filesOf(system: FaultSystem, node: string): Promise<string | null> {
  return (await system.nodeLines()).find((line) => line.node === node)?.files ?? null;
}

test(
  'a full disk at the swap: traffic moves, the node says that its files were not saved, and a restart serves the decided side',
  { timeout: 240_000 },
  async (context) => {
    const system = await startWithSmallDisk((reason) => context.skip(reason));
    const { config } = system.process(FULL).options.files;
    const filler = join(dirname(config), 'filler');
    const before = readFileSync(config, 'utf8');
    const load = new Load(system);
    await load.start();

    fill(filler);
    const outcome = await system.resultOf(await system.startMove(false));
    expect(outcome).toMatchObject({ moved: true });
    await load.flows();
    expect(await majorBehind(system, FULL)).toBe(18);
    expect(readFileSync(config, 'utf8')).toBe(before);
    expect(await filesOf(system, FULL)).toBe('to be saved');
    await until('the other node has saved', async () => (await filesOf(system, 'a')) === 'name the side that serves');
    expect(system.process(FULL).output).toMatch(/could not be saved.*ENOSPC|ENOSPC.*could not be saved/);

    await system.process(FULL).kill();
    await system.process(FULL).start();
    expect(await majorBehind(system, FULL)).toBe(18);
    await load.flows();

    rmSync(filler);
    expect(await system.resultOf(await system.startMove(true))).toMatchObject({ moved: true });
    expect(await system.resultOf(await system.startMove(false))).toMatchObject({ moved: true });
    await until('the files are saved', async () => (await filesOf(system, FULL)) === 'name the side that serves');
    await load.stop();
    await Promise.all(system.directWriters.map((writer) => writer.stop()));
    expect(await acceptingSides(system)).toEqual(['destination']);
    expect(await contents(system, load, 'destination')).toEqual([]);
  },
);
