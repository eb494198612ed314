"""For mkdocs: links to files of the repository that are not in docs/.

They work where the pages are read in the repository. On the site they lead
there where ``repo_url`` is set; elsewhere they are plain text. A link to a
file that does not exist stops the build.
"""

import re
from pathlib import Path
from urllib.parse import urljoin

from mkdocs.exceptions import PluginError

LINK = re.compile(r'\[([^\]]*)\]\((\.\./[^)\s#]*)(#[^)\s]*)?\)')


def on_page_markdown(markdown, page, config, files):
    docs = Path(config.docs_dir)
    page_folder = (docs / page.file.src_uri).parent

    def outside(match):
        text, target, anchor = match.groups()
        path = (page_folder / target).resolve()
        if not path.exists():
            raise PluginError(f'{page.file.src_uri} links to {target}, which does not exist')
        if docs in path.parents:
            return match[0]
        if not config.repo_url:
            return text
        place = path.relative_to(docs.parent).as_posix()
        base = config.repo_url.rstrip('/') + '/blob/main/'
        return f'[{text}]({urljoin(base, place)}{anchor or ""})'

    return LINK.sub(outside, markdown)
