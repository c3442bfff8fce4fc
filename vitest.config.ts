/** One task: how tests run here: real servers on a machine with two cores. */
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts', 'src/**/*.test.ts'],
    pool: 'forks',
    // Each worker runs PostgreSQL clusters of its own: more workers than cores only make every test slower.
    maxWorkers: 3,
    // Real servers start and copy; a test that waits for a condition has a shorter deadline of its own.
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
