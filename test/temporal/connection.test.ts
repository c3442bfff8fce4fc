/** One task: Temporal is found where its environment says, or where pgdog.toml says; a wrong environment is one clear error. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { TemporalConfig } from '../../src/config/config.js';
import { requireAnswer, temporalClient, temporalWorkerConnection } from '../../src/temporal/connection.js';
import { useTemporal } from '../support/temporal.js';

const server = useTemporal();
const FROM_ENVIRONMENT: TemporalConfig = { taskQueue: 'cutover' };
/** Nobody listens there; what is refused at once names the address that was tried. */
const NOWHERE = '127.0.0.1:1';

let folder: string;

/** Writes a profile file and makes it the environment's. */
function profiles(text: string): void {
  const file = join(folder, 'temporal.toml');
  writeFileSync(file, text);
  vi.stubEnv('TEMPORAL_CONFIG_FILE', file);
}

/** Where the client and the worker of this configuration arrive: both must be the same place. */
async function namespaceOf(config: TemporalConfig): Promise<string> {
  const client = await temporalClient(config);
  await requireAnswer(client, config);
  await client.connection.close();
  const worker = await temporalWorkerConnection(config);
  await worker.connection.close();
  expect(worker.namespace).toBe(client.options.namespace);
  return worker.namespace;
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cutover-profiles-'));
  for (const name of Object.keys(process.env)) if (name.startsWith('TEMPORAL_')) vi.stubEnv(name, undefined);
  // Not the profiles of whoever runs the tests.
  vi.stubEnv('TEMPORAL_CONFIG_FILE', join(folder, 'absent.toml'));
});

afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

test('TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE are used', async () => {
  vi.stubEnv('TEMPORAL_ADDRESS', server().address);
  expect(await namespaceOf(FROM_ENVIRONMENT)).toBe('default');
  vi.stubEnv('TEMPORAL_NAMESPACE', 'elsewhere');
  expect(await namespaceOf(FROM_ENVIRONMENT)).toBe('elsewhere');
});

test('a profile file is used, the chosen profile of it, and a variable wins over it', async () => {
  profiles(`[profile.default]\naddress = "${NOWHERE}"\n
    [profile.ours]\naddress = "${server().address}"\nnamespace = "of-the-profile"\n`);
  await expect(temporalClient(FROM_ENVIRONMENT)).rejects.toThrow(`Temporal at ${NOWHERE} cannot be reached`);
  vi.stubEnv('TEMPORAL_PROFILE', 'ours');
  expect(await namespaceOf(FROM_ENVIRONMENT)).toBe('of-the-profile');
  vi.stubEnv('TEMPORAL_NAMESPACE', 'of-the-variable');
  expect(await namespaceOf(FROM_ENVIRONMENT)).toBe('of-the-variable');
});

test('[temporal] in pgdog.toml wins over the environment', async () => {
  vi.stubEnv('TEMPORAL_ADDRESS', NOWHERE);
  vi.stubEnv('TEMPORAL_NAMESPACE', 'elsewhere');
  const ours = { ...FROM_ENVIRONMENT, address: server().address };
  expect(await namespaceOf(ours)).toBe('elsewhere');
  expect(await namespaceOf({ ...ours, namespace: 'ours' })).toBe('ours');
});

test.each([
  ['a profile that is not there', (): void => void vi.stubEnv('TEMPORAL_PROFILE', 'absent'), /absent/],
  [
    'a profile file that is no TOML',
    (): void => {
      profiles('[profile.default\n');
    },
    /./,
  ],
])('%s is one clear error', async (_, wrong, named) => {
  wrong();
  const refused = {
    code: 'temporal_environment_wrong',
    message: expect.stringMatching(named) as unknown,
    remedy: expect.stringContaining('TEMPORAL_PROFILE') as unknown,
  };
  await expect(temporalClient(FROM_ENVIRONMENT)).rejects.toMatchObject(refused);
  await expect(temporalWorkerConnection(FROM_ENVIRONMENT)).rejects.toMatchObject(refused);
});
