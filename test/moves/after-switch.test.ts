/** One task: what an operator does after the switch must not turn the routing back: RELOAD, RECONNECT, DDL, a restart. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import type { System } from '../support/served.js';
import { expectSameContents } from './contents.js';
import { Moving } from './moving.js';

/** Written by the application through the proxy; the new side must have it. */
async function expectWritesAt(system: System, cluster: 'source' | 'destination', mark: string): Promise<void> {
  const client = await system.client();
  await client.query(`INSERT INTO public.documents (body) VALUES ($1)`, [mark]);
  await client.end();
  const rows = await system[cluster].query('app', `SELECT FROM public.documents WHERE body = '${mark}'`);
  expect(rows, `"${mark}" is written at the ${cluster}`).toHaveLength(1);
}

async function restart(system: System): Promise<void> {
  await system.stopServing();
  await system.serve();
}

it(
  'the swapped routing, never saved, outlives RELOAD, RECONNECT, DDL and a restart',
  { timeout: 240_000 },
  async () => {
    const moving = await Moving.start({
      source: 17,
      destination: 18,
      general: 'cutover_save_config = false\ncutover_ddl = "allow"',
    });
    onTestFinished(() => moving.stop());
    const { system } = moving;
    const files = [readFileSync(system.files.config, 'utf8'), readFileSync(system.files.users, 'utf8')];
    await moving.load();
    await moving.reshard();

    await system.admin('RELOAD');
    expect(await moving.servingMajor()).toBe(18);
    await moving.writes();
    await system.admin('RECONNECT');
    expect(await moving.servingMajor()).toBe(18);
    await moving.writes();

    const migrator = await system.client();
    await migrator.query('ALTER TABLE public.entries ADD COLUMN note text');
    await migrator.query('CREATE INDEX entries_at ON public.entries (at)');
    await migrator.query(`UPDATE public.accounts SET balance = balance WHERE id = 1`);
    await migrator.end();
    await moving.writes();
    await system.admin('RELOAD');
    // The way back needs the column too, as always with logical replication (PostgreSQL documentation, 29.8).
    await system.source.query('app', 'ALTER TABLE public.entries ADD COLUMN note text');
    await moving.writes();
    expect(await moving.rollback()).toMatchObject({ outcome: 'moved' });
    expect(await moving.cutover()).toMatchObject({ outcome: 'moved' });
    await moving.writes();
    await moving.expectNothingLost();

    await restart(system);
    expect(await moving.servingMajor()).toBe(18);
    await expectWritesAt(system, 'destination', 'after the restart');
    await system.admin('RELOAD');
    await system.admin('RECONNECT');
    await system.admin('MAINTENANCE ON prod');
    await system.admin('MAINTENANCE OFF prod');
    await expectWritesAt(system, 'destination', 'after every command');
    expect([readFileSync(system.files.config, 'utf8'), readFileSync(system.files.users, 'utf8')]).toEqual(files);
    for (const backup of ['pgdog.bak.toml', 'users.bak.toml'])
      expect(existsSync(join(system.directory, backup)), backup).toBe(false);

    // The worker that started anew still owns the way back.
    expect(await moving.rollback()).toMatchObject({ outcome: 'moved', heading: 'reverse' });
    await expectWritesAt(system, 'source', 'after the rollback');
    await restart(system);
    expect(await moving.servingMajor()).toBe(17);
    await expectWritesAt(system, 'source', 'after the second restart');
    await expectSameContents(system.source, system.destination);
  },
);
