/** One task: how tests run here: real servers on a machine with two cores. */
import { configDefaults, defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Small files that run for minutes: begun last, as the default would have them, they would keep one worker at work alone. */
const LONG = /\/(faults-run\/fixed-\w+|faults\/killed-worker|simulator\/simulator|moves\/versions)\.test\.ts$/;

class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const isLong = ({ moduleId }: TestSpecification): boolean => LONG.test(moduleId);
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))];
  }
}

/** The fixed set of real faults. No client may hear nothing for longer than a bound: on its own, so that the bound is about the product. */
const ALONE = 'test/faults-run/fixed-*.test.ts';
/** No bound of time in them: they run beside that set on what it leaves of the processors, at the lowest priority. */
const BESIDE = [
  'test/simulator/simulator.test.ts',
  'test/fuzz/fuzz.test.ts',
  'test/model/model.test.ts',
  'test/sharding/{router,router-soundness,coordinator,coordinator-answers,partial-answers}.test.ts',
  'test/postgres/{schema,preflight,record,catalogue}.test.ts',
  'test/clients/clients.test.ts',
];
/** Long at any length that tells something: run by their names, with WRITES or SHARDED_TESTS. */
const BY_NAME = ['test/moves/generated-writes.test.ts', 'test/moves/encrypted.test.ts'];
const isWanted = process.env.WRITES !== undefined || process.env.SHARDED_TESTS === 'all';
const OTHERS = ['test/**/*.test.ts', 'src/**/*.test.ts'];

export default defineConfig({
  test: {
    pool: 'forks',
    globalSetup: ['test/support/memory-folder.ts'],
    // Each worker runs PostgreSQL clusters of its own and waits for them a quarter of the time: one more than there are cores.
    maxWorkers: 3,
    sequence: { sequencer: LongFirst },
    // Real servers start and copy; a test that waits for a condition has a shorter deadline of its own.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    projects: [
      { extends: true, test: { name: 'alone', include: [ALONE], sequence: { groupOrder: 0 } } },
      {
        extends: true,
        test: {
          name: 'beside',
          include: BESIDE,
          sequence: { groupOrder: 0 },
          setupFiles: ['test/support/lowest-priority.ts'],
          testTimeout: 300_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'others',
          include: OTHERS,
          exclude: [...configDefaults.exclude, 'dist/**', ALONE, ...BESIDE, ...(isWanted ? [] : BY_NAME)],
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
