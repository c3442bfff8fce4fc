/** One task: hold a process without clients to the files as they are now, and to the last good ones. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { loadConfig, type ConfigFiles } from '../../src/config/load.js';
import { WatchedConfig } from '../../src/config/watched.js';
import { until } from '../support/wait.js';

let directory: string;
let files: ConfigFiles;
let watched: WatchedConfig;
let told: string[];

const CONFIG = `[general]
cutover_lease = 2000

[admin]
password = "admin secret"

[[databases]]
name = "prod"
host = "127.0.0.1"
port = 1
`;
const USERS = `[[users]]
name = "app"
database = "prod"
password = "app secret"
`;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cutover-watched-'));
  files = { config: join(directory, 'pgdog.toml'), users: join(directory, 'users.toml') };
  writeFileSync(files.config, CONFIG);
  writeFileSync(files.users, USERS);
  told = [];
  watched = new WatchedConfig(() => loadConfig(files), {
    changed: (config) => told.push(`lease ${config.cutover.leaseMs.toString()}`),
    refused: (problem) => told.push(problem),
  });
});

afterEach(() => {
  watched.close();
  rmSync(directory, { recursive: true, force: true });
});

const edit = (from: string, to: string): void => {
  writeFileSync(files.config, readFileSync(files.config, 'utf8').replace(from, to));
};

it('an edited file is in force soon, one that cannot be loaded is not, and the next good one is', async () => {
  expect(watched.current.cutover.leaseMs).toBe(2000);
  edit('2000', '3000');
  await until('the lease of the file is in force', () => watched.current.cutover.leaseMs === 3000);
  edit('cutover_lease', 'cutover_leese');
  await until('the mistake is told', () => told.length === 2);
  expect(told[1]).toContain('cutover_leese');
  expect(watched.current.cutover.leaseMs).toBe(3000);
  edit('cutover_leese = 3000', 'cutover_lease = 4000');
  await until('the lease of the file is in force', () => watched.current.cutover.leaseMs === 4000);
  expect(told).toEqual(['lease 3000', told[1], 'lease 4000']);
});

it('what reads the same after an edit is no change', async () => {
  edit('[general]', '# a comment\n[general]');
  edit('2000', '2000 # as before');
  writeFileSync(files.users, USERS.replace('app secret', 'another secret'));
  await until('the other secret is in force', () => watched.current.users[0]?.passwords.includes('another secret'));
  expect(told).toEqual(['lease 2000']);
});
