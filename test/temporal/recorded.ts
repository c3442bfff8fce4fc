/** One task: read the recorded histories, JSON as Temporal's tools write it. */
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { History } from './histories.js';

export const FOLDER = fileURLToPath(new URL('histories/', import.meta.url));

export interface Recorded {
  /** `<workflow type>.<workflow id>`, dots for the slashes of the id */
  readonly name: string;
  readonly workflowId: string;
  readonly history: History;
}

export function recordedHistories(): readonly Recorded[] {
  const parse = historyParser();
  return readdirSync(FOLDER).map((file) => {
    const name = file.replace(/\.json$/, '');
    const history = parse(JSON.parse(readFileSync(join(FOLDER, file), 'utf8')));
    return { name, workflowId: name.split('.').slice(1).join('/'), history };
  });
}

/**
 * The SDK's own historyFromJSON fails ("type must be a Type") where npm installs several copies of protobufjs: it asks one
 * copy about a type of another. Here both come from the copy beside `@temporalio/proto`.
 */
function historyParser(): (json: unknown) => History {
  const here = createRequire(import.meta.url);
  const besideProto = createRequire(here.resolve('@temporalio/proto'));
  const protojson = besideProto('protobufjs/ext/protojson') as {
    fromJson(type: unknown, json: unknown, options: { ignoreUnknownFields: boolean }): History;
  };
  const root = here('@temporalio/proto/protos/root') as { lookupType(name: string): unknown };
  const type = root.lookupType('temporal.api.history.v1.History');
  return (json) => protojson.fromJson(type, json, { ignoreUnknownFields: true });
}
