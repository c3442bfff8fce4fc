/** One task: programs the demo starts are waited for, explained when they fail, and taken down in order. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cleanup } from '../../src/cli/demo/cleanup.js';
import { startProgram, type ProgramOptions } from '../../src/cli/demo/program.js';
import { freePort } from '../../src/dev/ports.js';
import { isRunning } from '../../src/dev/processes.js';

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cutover-program-'));
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

async function options(script: string): Promise<ProgramOptions> {
  const port = await freePort();
  const args = ['-e', script, port.toString()];
  return { name: 'the program', command: process.execPath, args, port, logFile: join(folder, 'program.log') };
}

test('a program that ends at its start is an error with what it said', async () => {
  const ends = await options("console.error('the disk is made of cheese'); process.exit(3)");
  await expect(startProgram(ends)).rejects.toThrow(/the program cannot be started[^]*made of cheese/);
});

test('a program that cannot be run is an error too', async () => {
  const missing = { ...(await options('')), command: join(folder, 'no-such-program') };
  await expect(startProgram(missing)).rejects.toThrow('the program could not be run');
});

test('a program that listens is stopped, and may be stopped again', async () => {
  const script = "require('node:net').createServer().listen(Number(process.argv[1]), '127.0.0.1')";
  const program = await startProgram(await options(script));
  expect(isRunning(program.pid)).toBe(true);
  await program.stop();
  expect(isRunning(program.pid)).toBe(false);
  await program.stop();
});

test('taking down runs last first, goes on after a failure, and is done once', async () => {
  const done: string[] = [];
  const cleanup = new Cleanup();
  cleanup.defer('first', () => void done.push('first'));
  cleanup.defer('second', () => {
    throw new Error('stuck');
  });
  cleanup.defer('third', () => void done.push('third'));
  await expect(Promise.all([cleanup.run(), cleanup.run()])).rejects.toThrow('stuck');
  expect(done).toEqual(['third', 'first']);
});

test('what never ends is named, and keeps nothing else from being taken down', async () => {
  const done: string[] = [];
  const cleanup = new Cleanup(20);
  cleanup.defer('first', () => void done.push('first'));
  cleanup.defer('the deaf program', () => new Promise(() => undefined));
  await expect(cleanup.run()).rejects.toThrow('the deaf program did not end within 20 ms');
  expect(done).toEqual(['first']);
});

test('what is started while the taking down runs is taken down as well', async () => {
  const done: string[] = [];
  const cleanup = new Cleanup();
  cleanup.defer('early', () => {
    cleanup.defer('late', () => void done.push('late'));
  });
  await cleanup.run();
  await cleanup.run();
  expect(done).toEqual(['late']);
});
