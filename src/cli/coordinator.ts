/** One task: `cutover coordinator`: make the coordinator of a sharded database or bring it in step, and say what it goes without. */
import { loadConfig, type ConfigFiles } from '../config/load.js';
import { keepCoordinator } from '../sharding/coordinator-keeping.js';

export interface CoordinatorOptions {
  readonly files: ConfigFiles;
  readonly database: string;
  readonly write: (text: string) => void;
}

/**
 * May be run again at any time, and must be after each change of the shards' schema.
 *
 * @throws CutoverError `configuration_invalid` | `coordinator_failed` | `schema_dump_failed` | `schema_admin_missing` | `database_unknown`
 */
export async function coordinator({ files, database, write }: CoordinatorOptions): Promise<void> {
  const { changed, leftOut } = await keepCoordinator(loadConfig(files), database);
  write(
    `the coordinator of "${database}" ${changed ? 'has been made from' : 'is in step with'} the schema of the shards\n`,
  );
  for (const { object, reason } of leftOut) write(`without ${object}: ${reason}\n`);
}
