/** One task: read docker-compose.yml the way the tests look at it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';

export const ROOT = join(import.meta.dirname, '..', '..');

/** Only what this file's readers use; the whole of it is checked against the Compose schema. */
const SERVICE = z.object({
  image: z.string(),
  build: z.string().optional(),
  command: z.array(z.string()).optional(),
  entrypoint: z.array(z.string()).optional(),
  environment: z.record(z.string(), z.string()).default({}),
  ports: z.array(z.string()).default([]),
  volumes: z.array(z.string()).default([]),
  healthcheck: z.object({ test: z.array(z.string()) }).optional(),
  stop_grace_period: z.string().optional(),
  depends_on: z.record(z.string(), z.object({ condition: z.string() })).default({}),
});

const FILE = z.object({ services: z.record(z.string(), SERVICE), volumes: z.record(z.string(), z.unknown()) });

export type ComposeFile = z.infer<typeof FILE>;
export type Service = z.infer<typeof SERVICE>;

/** The parsed file with anchors resolved, as Compose sees it. */
export function rawComposeFile(): unknown {
  return parse(readFileSync(join(ROOT, 'docker-compose.yml'), 'utf8'), { merge: true });
}

export function composeFile(): ComposeFile {
  return FILE.parse(rawComposeFile());
}

/** One service by name. */
export function service(name: string): Service {
  const found = composeFile().services[name];
  if (!found) throw new Error(`docker-compose.yml has no service "${name}"`);
  return found;
}

/** The `-c name=value` settings of a PostgreSQL service's command. */
export function settingsOf(command: readonly string[]): Record<string, string> {
  const pairs = command.flatMap((word, index) => (word === '-c' ? [command[index + 1] ?? ''] : []));
  return Object.fromEntries(pairs.map((pair) => pair.split('=', 2) as [string, string]));
}
