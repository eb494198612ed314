from projects.conftest import golden

__all__ = ['golden']
